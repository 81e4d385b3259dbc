//! The decisions of Holdline as pure state machines.
