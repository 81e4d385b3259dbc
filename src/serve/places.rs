//! Where a running proxy is found, as its banner and its log say it.

use crate::door::listen::PublicListener;

/// Where a running proxy is found.
#[derive(Debug)]
pub struct Places {
    /// The public listeners, and whether TLS is spoken on each.
    pub public: Vec<(String, bool)>,
    /// The admin API, as a URL that `holdline ctl --admin` takes.
    pub admin: String,
}

impl Places {
    /// Of what is bound: `admin` is the address of the admin listener.
    pub(super) fn of(bound: &[PublicListener], admin: String, admin_tls: bool) -> Self {
        let public = bound.iter().map(|listener| (listener.bound.to_string(), listener.tls)).collect();
        let admin = match (admin.starts_with("unix:"), admin_tls) {
            (true, _) => admin,
            (false, true) => format!("https://{admin}"),
            (false, false) => format!("http://{admin}"),
        };
        Self { public, admin }
    }
}
