//! The files of certificates, read again and again, because that is how they are renewed: a new set is put in force as a
//! whole, once all of it is good.
//!
//! Files are read and compared rather than watched: a network's file system and the swapped links of a container's
//! volume tell no watcher. Invariant: a set of which any part is bad changes nothing; what was in force stays, whole,
//! and so does each live session.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Reload;
use crate::config::{Invalid, Loaded, Notice};
use crate::events::Fact;
use crate::metrics::labels::ReloadResult;
use crate::net::TlsFault;
use crate::tls::Sets;

const DAY: Duration = Duration::from_secs(86_400);

/// How near the end of a certificate is when it is told, each once.
const WARNINGS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(3 * 86_400), Duration::from_secs(14 * 86_400)];

/// What becomes of the certificates in force when a configuration is put in force.
#[derive(Debug, Default)]
pub(super) enum Shown {
    /// They stay: no file was read.
    #[default]
    Unread,
    /// They stay, because something is wrong with the files, which are named as before.
    Wrong(String),
    /// These take their place.
    These(Sets),
}

/// What was told already.
#[derive(Debug, Default)]
struct Told {
    /// What was wrong with the files when they were looked at last.
    wrong: Option<String>,
    /// Of each certificate in force, by its fingerprint, how near its end was.
    nearest: HashMap<String, usize>,
}

impl Reload {
    /// Looks at the files of certificates every `server.tls.reload_interval`, until `stopped`.
    pub async fn keep_certificates(&self, stopped: impl Future<Output = ()>) {
        let mut told = Told::default();
        let mut stopped = std::pin::pin!(stopped);
        loop {
            self.tell_ends(&mut told);
            let interval = self.process.config.load().server.tls.reload_interval;
            tokio::select! {
                () = tokio::time::sleep(interval) => self.look_at_certificates(&mut told).await,
                () = &mut stopped => return,
            }
        }
    }

    async fn look_at_certificates(&self, told: &mut Told) {
        let _turn = self.one_at_a_time.lock().await;
        let (config, before) = (self.process.config.load_full(), self.process.tls.sets());
        let held = before.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || Sets::read(&config, &held)).await else { return };
        match read {
            Ok((sets, _)) if sets.are(&before) => told.wrong = None,
            Ok((sets, concerns)) => {
                told.wrong = None;
                for TlsFault { key, message } in concerns {
                    tracing::warn!("{key}: {message}");
                }
                self.show(sets);
            }
            Err(faults) => {
                self.process.metrics.tls_reload(ReloadResult::Failed);
                let error = said(&faults);
                if told.wrong.as_ref() != Some(&error) {
                    self.tell_wrong(error.clone());
                    told.wrong = Some(error);
                }
            }
        }
    }

    /// What becomes of the certificates in force if this configuration becomes the one in force, and what there is to warn
    /// of. Where it says nothing new of them, files that are bad now are no fault of the configuration.
    ///
    /// # Errors
    /// What is wrong with the files that it names.
    pub(super) fn certificates_of(&self, loaded: &Loaded) -> Result<(Shown, Vec<Notice>), Invalid> {
        let notice = |fault: TlsFault| loaded.sources.notice(fault.key.to_owned(), fault.message);
        let faults = match Sets::read(&loaded.config, &self.process.tls.sets()) {
            Ok((sets, concerns)) => return Ok((Shown::These(sets), concerns.into_iter().map(notice).collect())),
            Err(faults) => faults,
        };
        let (new, running) = (&loaded.config, self.process.config.load());
        if new.server.tls != running.server.tls || new.admin.tls != running.admin.tls {
            return Err(Invalid { errors: faults.into_iter().map(notice).collect() });
        }
        Ok((Shown::Wrong(said(&faults)), faults.into_iter().map(notice).collect()))
    }

    /// Does what was found of the certificates of a configuration, and tells it.
    pub(super) fn settle(&self, shown: Shown) {
        match shown {
            Shown::Unread => {}
            Shown::Wrong(error) => {
                self.process.metrics.tls_reload(ReloadResult::Failed);
                self.tell_wrong(error);
            }
            Shown::These(sets) => self.show(sets),
        }
    }

    /// Has new handshakes use `sets`, and tells that, if they are others than before.
    fn show(&self, sets: Sets) {
        if sets.are(&self.process.tls.sets()) {
            return;
        }
        let names = sets.named().flat_map(|(_, set)| &set.certificates).filter_map(|one| one.names.first());
        let names: Vec<String> = names.collect();
        self.process.put_tls(sets);
        self.process.metrics.tls_reload(ReloadResult::Loaded);
        tracing::info!(certificates = names.join(" "), "tls.reloaded");
        self.process.events.push(Fact::TlsReloaded { certificates: names });
    }

    fn tell_wrong(&self, error: String) {
        tracing::warn!(%error, "certificates were not reloaded; the old ones stay");
        self.process.events.push(Fact::TlsReloadFailed { error });
    }

    /// Tells of each certificate whose end has come nearer than it was told.
    fn tell_ends(&self, told: &mut Told) {
        let (sets, now) = (self.process.tls.sets(), SystemTime::now());
        let mut nearest = HashMap::new();
        for certificate in sets.named().flat_map(|(_, set)| &set.certificates) {
            let left = certificate.validity.not_after.duration_since(now).unwrap_or_default();
            let Some(near) = WARNINGS.iter().position(|&warning| left <= warning) else { continue };
            let print = &certificate.fingerprint;
            if told.nearest.get(print).is_none_or(|&before| near < before) {
                let name = certificate.names.first().unwrap_or_default();
                let (days, file) = (left.as_secs() / DAY.as_secs(), certificate.file.display().to_string());
                let not_after = certificate.validity.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                tracing::warn!(name, days, file, "a certificate is about to expire, or has; it is shown all the same");
                self.process.events.push(Fact::TlsExpires { name, file, days, not_after });
            }
            nearest.insert(print.clone(), near);
        }
        told.nearest = nearest;
    }
}

fn said(faults: &[TlsFault]) -> String {
    faults.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>().join("; ")
}
