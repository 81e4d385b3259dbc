//! A new configuration for the running process: read and judged as a whole first, then put in force part by part.
//!
//! Nothing of a configuration that is refused takes effect, and a live pipe keeps the route that it was opened with. What
//! only a restart changes stays as it runs, in what is shown as well, and is named each time until it is restarted.
//! One reload at a time.
//!
//! A file that sets nothing, or that drops what guards the process ([`guards`]), is refused unless the caller says that it
//! means that: a file is emptied by accident more often than on purpose.

mod certificates;
mod guards;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use crate::backends::Setup;
use crate::config::{Change, Config, Invalid, Loaded, Notice, Place, PoolsTls, Sources};
use crate::events::Fact;
use crate::process::Process;
use crate::resume::KeyRing;
use crate::routes::RouteError;
use crate::rules::Rules;
use crate::tokens::{Tokens, TokensError};
use certificates::Shown;

/// The configuration in force and the way to another one.
#[derive(Debug)]
pub struct Reload {
    process: Arc<Process>,
    sources: ArcSwap<Sources>,
    one_at_a_time: Mutex<()>,
}

/// What came of a configuration that is good.
#[derive(Debug)]
pub struct Reloaded {
    /// What differs from the one before, and what of it waits for a restart.
    pub changes: Vec<Change>,
    /// What its author should know.
    pub warnings: Vec<Notice>,
}

/// Why the old configuration stays.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The new one is wrong.
    #[error(transparent)]
    Config(#[from] Invalid),
    /// Its tokens file cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// A route cannot be.
    #[error("routes: {0}")]
    Route(#[from] RouteError),
    /// Its file sets nothing, and the one in force does.
    #[error(
        "the configuration sets nothing, as if its file had been emptied by accident; write what is meant, or reload with force (holdline ctl config reload --force)"
    )]
    Empty,
    /// It would not protect any more what is protected now.
    #[error(
        "the configuration drops {0}; restart if that is meant, or reload with force (holdline ctl config reload --force)"
    )]
    Unguarded(String),
    /// Reading it failed in a way that says nothing about it.
    #[error("the configuration could not be read: {0}")]
    Interrupted(String),
}

/// A configuration that was judged and found good.
struct Judged {
    config: Config,
    sources: Sources,
    rules: Rules,
    tokens: Option<Tokens>,
    resume_keys: Option<KeyRing>,
    tls: PoolsTls,
    shown: Shown,
    changes: Vec<Change>,
    warnings: Vec<Notice>,
    /// What it does not protect any more.
    dropped: Vec<String>,
}

impl Judged {
    fn outcome(self) -> Reloaded {
        Reloaded { changes: self.changes, warnings: self.warnings }
    }
}

impl Reload {
    /// The process runs by a configuration that came from `sources`.
    #[must_use]
    pub fn new(process: Arc<Process>, sources: Sources) -> Self {
        Self { process, sources: ArcSwap::from_pointee(sources), one_at_a_time: Mutex::new(()) }
    }

    /// Where its values came from.
    #[must_use]
    pub fn sources(&self) -> Arc<Sources> {
        self.sources.load_full()
    }

    /// Reads the configuration again, from where it was read at the start.
    ///
    /// # Errors
    /// When it is not good; nothing has changed then but the metric.
    async fn read_again(&self) -> Result<Loaded, ReloadError> {
        let sources = self.sources();
        let loading = tokio::task::spawn_blocking(move || sources.load_again());
        Ok(loading.await.map_err(|error| ReloadError::Interrupted(error.to_string()))??)
    }

    /// Reads the configuration again and puts it in force if it is good; what guards the process goes only by `force`.
    ///
    /// # Errors
    /// Why the old one stays.
    pub async fn reload(&self, force: bool) -> Result<Reloaded, ReloadError> {
        let _turn = self.one_at_a_time.lock().await;
        let judged = match self.read_again().await {
            Ok(loaded) => self.judge_with_files(loaded, force),
            Err(error) => Err(error),
        };
        let succeeded = &self.process.metrics.families().config_last_reload_successful;
        match judged {
            Ok(judged) => {
                let reloaded = self.put_in_force(judged);
                succeeded.set(1);
                self.process.metrics.set_reloaded(SystemTime::now());
                self.say(&reloaded);
                Ok(reloaded)
            }
            Err(error) => {
                succeeded.set(0);
                tracing::warn!(%error, "the configuration was not reloaded; the old one stays");
                self.process.events.push(Fact::ConfigReloadFailed { error: error.to_string() });
                Err(error)
            }
        }
    }

    /// What the configuration would change that is written where it was read at the start.
    ///
    /// # Errors
    /// Why a reload would refuse it.
    pub async fn rehearse(&self) -> Result<Reloaded, ReloadError> {
        Ok(self.judge_with_files(self.read_again().await?, false)?.outcome())
    }

    /// What a configuration would change that is written elsewhere. The files that it names are not read.
    ///
    /// # Errors
    /// Why a reload would refuse it.
    pub fn foresee(&self, loaded: Loaded) -> Result<Reloaded, ReloadError> {
        Ok(self.judge(loaded, false)?.outcome())
    }

    fn judge_with_files(&self, loaded: Loaded, force: bool) -> Result<Judged, ReloadError> {
        let (tls, untimely) = loaded.pools_tls()?;
        let (resume_keys, exposed) = loaded.resume_keys()?;
        let (shown, concerns) = self.certificates_of(&loaded)?;
        loaded.worker_commands()?;
        let mut judged = self.judge(loaded, force)?;
        (judged.tls, judged.resume_keys, judged.shown) = (tls, resume_keys, shown);
        judged.warnings.extend(untimely.into_iter().chain(exposed).chain(concerns));
        judged.tokens = judged.config.admin.tokens_file.as_deref().map(Tokens::load).transpose()?;
        Ok(judged)
    }

    fn judge(&self, loaded: Loaded, force: bool) -> Result<Judged, ReloadError> {
        let Loaded { mut config, warnings, sources } = loaded;
        let running = self.process.config.load();
        let changes = running.changes(&config);
        let is_empty = !sources.places.values().any(|place| matches!(place, Place::File { .. }));
        if is_empty && !changes.is_empty() && !force {
            return Err(ReloadError::Empty);
        }
        config.keep_what_needs_restart(&running);
        // What runs on must fit what is new: tokens, for one, must not go while the listener is open to a network.
        config.check_again()?;
        let rules = Rules::from_config(&config)?;
        let dropped = guards::dropped((&running, &self.process.rules.load().routes), (&config, &rules.routes));
        if !dropped.is_empty() && !force {
            return Err(ReloadError::Unguarded(dropped.join(", ")));
        }
        Ok(Judged {
            config,
            sources,
            rules,
            tokens: None,
            resume_keys: None,
            tls: PoolsTls::default(),
            shown: Shown::default(),
            changes,
            warnings,
            dropped,
        })
    }

    fn put_in_force(&self, judged: Judged) -> Reloaded {
        let Judged { config, sources, rules, tokens, resume_keys, tls, shown, changes, warnings, dropped } = judged;
        let process = &self.process;
        if !dropped.is_empty() {
            tracing::warn!(guards = dropped.join(", "), "config.guards_dropped");
        }
        process.tokens.store(tokens.map(Arc::new));
        self.settle(shown);
        if let Some(ring) = resume_keys {
            process.resume_keys.store(Arc::new(ring));
        } else if process.config.load().resume.keys_file.is_some() {
            // What the file that is named no more has signed is good no more.
            process.resume_keys.store(Arc::new(KeyRing::random()));
        }
        // Before the routes, so that a new route finds its pool.
        process.backends.configure(&Setup::from_config(&config, &tls));
        process.workers.configure(&config.workers);
        process.rules.store(Arc::new(rules));
        process.pipes.set_held_bytes_max(config.replay.total_bytes_max, config.pools.len());
        process.pipes.keys.set_count_max(config.limits.statistics_keys as usize);
        process.pipes.labels.set_bounds(&config.limits);
        process.slots.set_max(config.server.max_connections as usize);
        process.waiting.set_max(config.server.waiting_max as usize);
        process.limits.configure(config.limits);
        // A level that an operator set for good holds until the file has another one.
        if config.log.level != self.process.config.load().log.level {
            process.level.configure(config.log.level);
        }
        self.process.config.store(Arc::new(config));
        self.sources.store(Arc::new(sources));
        Reloaded { changes, warnings }
    }

    fn say(&self, reloaded: &Reloaded) {
        let (waiting, changed): (Vec<_>, Vec<_>) = reloaded.changes.iter().partition(|change| change.needs_restart);
        let keys = |changes: &[&Change]| changes.iter().map(|change| change.key.clone()).collect::<Vec<_>>();
        let (changed, needs_restart) = (keys(&changed), keys(&waiting));
        for warning in &reloaded.warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!(changed = changed.join(" "), needs_restart = needs_restart.join(" "), "config.reloaded");
        self.process.events.push(Fact::ConfigReloaded { needs_restart });
    }
}
