//! What the operator says of conversations: own profiles, what a route adds to each, and what a route's are.

use std::sync::Arc;

use holdline_core::conversation::profile::{Dialect, RULES};
use holdline_core::conversation::rules::{ForgetRule, KeepRule, Rules};
use holdline_core::conversation::{Profile, Profiles};

use super::{Config, Conversation, Route};
use crate::routes::ConversationRule;

/// One `[[profiles]]`: the protocol of an application, in JSON.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnProfile {
    /// What routes, the API and the log call it.
    pub name: String,
    /// The subprotocol that `auto` knows it by.
    pub subprotocol: Option<String>,
    /// What is kept of what a client says.
    pub record: Vec<KeepRule>,
    /// What is forgotten of that.
    pub forget: Vec<ForgetRule>,
}

/// `routes.prologue`: what a new worker must hear again (PROTOCOL section 9).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Prologue {
    /// The first messages of the client; 0 is none.
    pub first: u32,
    /// The name of a profile.
    pub profile: Option<String>,
    /// What is kept beyond that.
    pub keep: Vec<KeepRule>,
    /// What is forgotten of that.
    pub forget: Vec<ForgetRule>,
}

impl Config {
    /// The profiles that `route` knows beside the built-in ones, and those with what it adds.
    #[must_use]
    pub fn profiles(&self, route: &Route) -> Profiles {
        let own = self.profiles.iter().map(|own| {
            let subprotocol = own.subprotocol.as_deref().map(Arc::from);
            let rules = Rules::own(&own.record, &own.forget);
            Arc::new(Profile { subprotocol, rules, ..Profile::of(&own.name, Dialect::Json) })
        });
        let prologue = &route.prologue;
        let first = (prologue.first > 0).then(|| Profile::first(prologue.first));
        Profiles::new(own.chain(first).collect(), &Rules::own(&prologue.keep, &prologue.forget))
    }

    /// The profile that `route` names, if there is one of that name; the first messages of a client are one too, and so
    /// are rules alone where the route says that there is a profile.
    #[must_use]
    pub fn profile(&self, route: &Route) -> Option<Arc<Profile>> {
        let prologue = &route.prologue;
        match (&prologue.profile, prologue.first, route.conversation) {
            (Some(name), ..) => self.profiles(route).named(name),
            (None, 0, Conversation::Profile) => self.profiles(route).named(RULES),
            (None, 0, _) => None,
            (None, first, _) => Some(Profile::first(first)),
        }
    }

    /// What the conversations of `route` are.
    #[must_use]
    pub fn conversation_rule(&self, route: &Route) -> ConversationRule {
        match (route.conversation, self.profile(route)) {
            (Conversation::Auto | Conversation::Profile, Some(profile)) => ConversationRule::Profile(profile),
            (Conversation::Auto, None) => ConversationRule::Auto,
            (Conversation::Stateful, _) => ConversationRule::Stateful,
            // A profile that is missing was refused; see `checks`.
            (Conversation::Stateless, _) | (Conversation::Profile, None) => ConversationRule::Stateless,
        }
    }

    /// The names of all profiles.
    pub(super) fn profile_names(&self) -> String {
        let own = self.profiles.iter().map(|own| own.name.clone());
        let built_in = Profile::built_in().iter().map(|profile| profile.name.to_string());
        built_in.chain(own).collect::<Vec<_>>().join(", ")
    }
}
