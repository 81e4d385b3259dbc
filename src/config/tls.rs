//! The files behind `pools.tls`: read where a configuration is to be used, and judged with their places in it.

use std::collections::HashMap;
use std::time::SystemTime;

use super::notice::{Invalid, Notice, Place};
use super::{Loaded, Sources};
use crate::net::{TlsClient, TlsFault};

/// How the workers of each pool are met by TLS.
#[derive(Clone, Debug, Default)]
pub struct PoolsTls(HashMap<String, TlsClient>);

impl PoolsTls {
    /// That of one pool; the system's trust where nothing is said.
    #[must_use]
    pub fn of(&self, pool: &str) -> TlsClient {
        self.0.get(pool).cloned().unwrap_or_else(TlsClient::native)
    }
}

impl Loaded {
    /// Reads the files that `pools.tls` names; and says which of them are not valid now. Those are an error to `holdline
    /// check` only: what time has done must not keep a process from starting.
    ///
    /// # Errors
    /// Everything else that is wrong with them.
    pub fn pools_tls(&self) -> Result<(PoolsTls, Vec<Notice>), Invalid> {
        let now = SystemTime::now();
        let (mut clients, mut untimely, mut errors) = (HashMap::new(), Vec::new(), Vec::new());
        for (index, pool) in self.config.pools.iter().enumerate() {
            let notice = |fault: TlsFault| self.sources.notice(format!("pools[{index}].{}", fault.key), fault.message);
            match TlsClient::read(&pool.tls.files(), now) {
                Ok((client, faults)) => {
                    clients.insert(pool.name.clone(), client);
                    untimely.extend(faults.into_iter().map(notice));
                }
                Err(faults) => errors.extend(faults.into_iter().map(notice)),
            }
        }
        if errors.is_empty() { Ok((PoolsTls(clients), untimely)) } else { Err(Invalid { errors }) }
    }
}

impl Sources {
    /// What is to be said of `key`, with the place where it is written.
    #[must_use]
    pub fn notice(&self, key: String, message: String) -> Notice {
        let place = self.places.get(&key).cloned().unwrap_or(Place::Nowhere);
        let file = self.file.as_ref().map(|file| file.display().to_string());
        Notice { file, place, key, message }
    }
}
