//! The subprotocols that a client offers, and which of them are ours: `holdline.v1`, alone or before the application's own
//! (PROTOCOL section 7), and the pipe that it comes back to.
//!
//! Invariant: what begins with `holdline.` never reaches a backend, and nothing is picked that was not offered.

use holdline_core::ids::PipeId;

/// What all entries of ours begin with.
const OURS: &str = "holdline.";

/// The aware protocol.
const V1: &str = "holdline.v1";

/// What names the pipe that a client comes back to.
const PIPE: &str = "holdline.pipe.";

/// What a client offers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Offer {
    /// What its backend is asked for, in the client's order.
    pub apps: Vec<String>,
    /// The entries that ask for the aware protocol, each with the application's own that it goes with.
    aware: Vec<(String, Option<String>)>,
    /// The pipe that it comes back to.
    pub pipe: Option<PipeId>,
}

impl Offer {
    /// What these entries, in their order, offer.
    #[must_use]
    pub fn of(entries: &[String]) -> Self {
        let mut offer = Self::default();
        for entry in entries {
            let Some(ours) = entry.strip_prefix(OURS) else {
                offer.ask_for(entry);
                continue;
            };
            if entry == V1 {
                offer.aware.push((entry.clone(), None));
            } else if let Some(app) = entry.strip_prefix(V1).and_then(|rest| rest.strip_prefix('+')) {
                if !app.is_empty() && !app.starts_with(OURS) {
                    offer.ask_for(app);
                    offer.aware.push((entry.clone(), Some(app.to_owned())));
                }
            } else if let Some(pipe) = ours.strip_prefix(&PIPE[OURS.len()..]) {
                // Behind it stands the node that has the pipe, where there are several.
                let id = pipe.split('.').next().unwrap_or_default();
                offer.pipe = offer.pipe.or_else(|| PipeId::parse(id));
            }
        }
        offer
    }

    fn ask_for(&mut self, app: &str) {
        if !self.apps.iter().any(|known| known == app) {
            self.apps.push(app.to_owned());
        }
    }

    /// The entry that says that the aware protocol is spoken, for a backend that has `picked` this; none if the client
    /// did not offer it with that.
    #[must_use]
    pub fn spoken(&self, picked: Option<&str>) -> Option<&str> {
        let fits = |app: Option<&str>| app == picked;
        let with_app = self.aware.iter().find(|(_, app)| app.is_some() && fits(app.as_deref()));
        let alone = self.aware.iter().find(|(_, app)| app.is_none());
        with_app.or(alone.filter(|_| picked.is_none())).map(|(entry, _)| entry.as_str())
    }

    /// The first entry that asks for the aware protocol, and the application's own that it goes with: for a client that
    /// comes back, whose backend is not asked.
    #[must_use]
    pub fn first_aware(&self) -> Option<(&str, Option<&str>)> {
        self.aware.first().map(|(entry, app)| (entry.as_str(), app.as_deref()))
    }
}

/// What a worker is offered that may number its messages: each of `apps` with numbers first, or numbers alone.
#[must_use]
pub fn with_numbers(apps: &[String]) -> Vec<String> {
    match apps {
        [] => vec![V1.to_owned()],
        _ => apps.iter().map(|app| format!("{V1}+{app}")).chain(apps.iter().cloned()).collect(),
    }
}

/// Whether `picked` is an entry that asks for the aware protocol.
#[must_use]
pub fn is_numbered(picked: &str) -> bool {
    picked == V1 || application_of(picked).is_some()
}

/// The application's own subprotocol in an entry that asks for the aware protocol.
#[must_use]
pub fn application_of(picked: &str) -> Option<&str> {
    picked.strip_prefix(V1)?.strip_prefix('+')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn offer(entries: &[&str]) -> Offer {
        Offer::of(&entries.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_backend_is_asked_for_what_is_not_ours() {
        for (entries, apps) in [
            (&["holdline.v1+chat", "chat"][..], &["chat"][..]),
            (&["holdline.v1", "chat", "other"], &["chat", "other"]),
            (&["holdline.v1+chat"], &["chat"]),
            (&["holdline.v2+chat", "holdline.v1+", "holdline.v1+holdline.x", "holdline.other"], &[]),
            (&["holdline.v1+b", "holdline.v1+a", "a", "b", "c"], &["b", "a", "c"]),
            (&["Holdline.v1", "holdlines"], &["Holdline.v1", "holdlines"]),
        ] {
            assert_eq!(offer(entries).apps, apps, "{entries:?}");
        }
    }

    #[test]
    fn what_is_spoken_was_offered_and_goes_with_what_the_backend_picked() {
        let both = offer(&["holdline.v1+chat", "chat", "other"]);
        assert_eq!(both.spoken(Some("chat")), Some("holdline.v1+chat"));
        assert_eq!(both.spoken(Some("other")), None, "the client may speak that, but not with numbers");
        assert_eq!(both.spoken(None), None);
        let alone = offer(&["holdline.v1", "chat"]);
        assert_eq!((alone.spoken(None), alone.spoken(Some("chat"))), (Some("holdline.v1"), None));
        assert_eq!(offer(&["chat"]).spoken(Some("chat")), None);
    }

    #[test]
    fn a_pipe_is_named_by_its_id_with_or_without_its_node() {
        for (entry, named) in [
            (format!("holdline.pipe.{ID}"), true),
            (format!("holdline.pipe.{ID}.node-1"), true),
            (format!("holdline.pipe.{ID}x"), false),
            ("holdline.pipe.".to_owned(), false),
        ] {
            assert_eq!(offer(&["holdline.v1", &entry]).pipe.is_some(), named, "{entry}");
        }
    }
}
