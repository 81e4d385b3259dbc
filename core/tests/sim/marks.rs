//! The states and faults that a sweep must have reached, counted.

use std::fmt;

macro_rules! marks {
    ($($name:ident),* $(,)?) => {
        /// Something that a sweep has to see at least once.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mark { $($name),* }

        impl Mark {
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

// A macro, since the list would otherwise stand here twice and one of them would be wrong.
marks! {
    Reattached, ReplayedAgain, InDoubt, GapSaid, LostByPolicy, LostByGrace, LostByOverflow, LostClosed, LostDown,
    Dropped, Overflowed, OverflowPaused, ClientPaused, WorkerPaused, PongsMissing, LeftInDoubt, CommitPong,
    ResumedOk, ResumeRefused, ResumeNew, HalfMessageToDeadWorker, HalfMessageFromDeadWorker, HalfMessageFromDeadClient,
    EofSeen, ResetSeen, HeartbeatSeen, CloseSeen, WrongWorkerSeen, ProtocolSeen, SilentSeen, DrainSeen, AdminSeen,
    DrainedClean, DrainTimedOut, DialRefused, DialHung, DialTimedOut, LateAttach, NoCandidate, RetryAfter, Unauthorized,
    LateBytes, LateLoss, DuplicateLoss, StalePong, EarlyTick, FrozenWorker, HalfOpenWorker, HalfOpenClient, SlowClient,
    SlowWorker, BigMessage, TooBigFromClient, TooBigFromWorker, TooBigSkipped, AppLevel, LeftUnread, LeftTooMuch,
    ViolationByClient, Fragmented, EmptyFragments, Compressed, ClientVanished,
    ClientClosed, ClientClosedDetached, FarewellDelivered, OperatorClosed, BackendEnded, BackendLossCloses, GraceExpired,
    Poison, Stalled, ClientHeartbeatDeath, MemoryPressure, ReplayDelayed, TailReplayed, LateRegistration, WorkerRestarted,
    Ejected, Suspended, WrongWordPassedOn, QueueStyle, PullStyle, FinishedByCalm, TalkedAfterCalm, PartialWrite,
    EmptyMessage, ClockJumped, OperatorSpoke, OperatorSpokeAmid, OperatorUnheard,
    FrozenAttached, FrozenDetached, FrozenDialing, FrozenLeaving, FrozenClosing,
    FrozenHalfWritten, FrozenHalfRead, FrozenPinged, FrozenUnconfirmed, FrozenOlderThanClock, LinkLostWithFreeze,
    HandedOver, HandedBack, HandOverTookTime, HandedOverFull, LateNewsOfTheOld, Keyed, AliasChanged, Reregistered,
    OldAliasRefused, Throttled, OverLimitClosed, Evicted, LostByEviction, EndedInAnotherWay,
    CameBack, CameBackInOutage, CameBackAmidMove, CameBackForTheEnd, CameTooLate, ClientGraceRanOut, Replaced, Rejected,
    ReplayedDown, InDoubtDown, LeftInDoubtDown, ClientPongsMissing, NeitherRead, ReadBeyondTheWindow, StaleClientPong, LateClientNews, RestOfTheReplaced,
    HalfMessageToDeadClient, ReadUpToTheBound, EvictedWhileAway, WorkerLostWhileAway, MovedWhileAway, AttachedWhileAway,
    FrozenClientAway, FrozenClientAwayInOutage, ClientLostWithFreeze, GraceRanOutWhileAway, EndedWhileAway,
    RefusedByAll, RefusedBySome, ProvenByTalk, HandoverSeen, TakenOver, Stayed, HeldDied, HeldLetGo, DialOutlivedOld, FrozenHeld, FrozenDialingNext,
    SparedAmidDeaths,
    AwareGreeted, AwareResumed, AwareReplayed, AwareLive, AwareRepeated, AwareSkipped, AwareGaveUp, AwareGapUp, AwareGapDown,
    AwareGapUnknown, AwareGapAtTheEnd, AwareFin, AwareClosedUnended, AwareBroken, AwareRefused, AwareLied, AwareUnknown, AwareEpoch, AwareTaken,
    NumberedGreeted, NumberedResumed, NumberedRejected, NumberedGap, NumberedRepeated, NumberedBroken, NumberedFin,
    NumberedUnanswered, NumberedFellBack, NumberedTakenOver,
    AwareOldToken, AwareTookOver, AwareBeat, AwareWindowFull, FrozenAware, FrozenAwareUngreeted,
}

/// How often each mark was reached.
#[derive(Clone, Debug)]
pub struct Marks(Vec<u64>);

impl Default for Marks {
    fn default() -> Self {
        Self(vec![0; Mark::ALL.len()])
    }
}

impl Marks {
    pub fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    pub fn missing(&self) -> Vec<Mark> {
        Mark::ALL.iter().copied().filter(|&mark| self.0[mark as usize] == 0).collect()
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &mark in Mark::ALL {
            write!(f, "{mark:?} {}  ", self.0[mark as usize])?;
        }
        Ok(())
    }
}
