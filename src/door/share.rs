//! A newcomer's way into a stream: it joins the one there is, waits for the one that is being opened, or opens one.
//!
//! The one that opens it dials the worker with its own headers, and the worker's answer is its answer. Later viewers are
//! let in without the worker being asked: it speaks to all of them or to none.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use holdline_core::ids::PipeId;
use http::{HeaderMap, StatusCode};

use super::admit::refuse_workerless;
use super::outcome::Refused;
use crate::handshake::deflate::Compression;
use crate::handshake::refusal::Refusal;
use crate::pipe::attach::{Attach, FirstAttach, Plan, first_attach};
use crate::pipe::{ClientLink, Driver};
use crate::pipes::{PipeFacts, Sharing};
use crate::process::Process;
use crate::routes::{Share, Uncompressed};
use crate::share::{Hub, Opener, Opening, Standing, StreamKey, StreamLink, ViewerLink};

/// Attempts of others that a newcomer waits for at most, one after the other.
const WAITS_MAX: usize = 3;

/// A newcomer's place, and what its 101 has to say.
#[derive(Debug)]
pub struct Joined {
    /// What its pipe begins on.
    pub first: FirstAttach,
    /// Whose viewer it is.
    pub hub: Arc<Hub>,
}

/// Lets the client of `plan` into the stream `key`.
///
/// # Errors
/// The answer for the client: the worker's own refusal if this client opened the stream, or ours.
pub async fn join_or_open(
    plan: &Plan,
    share: &Share,
    key: StreamKey,
    process: &Arc<Process>,
) -> Result<Joined, Refused> {
    for _ in 0..=WAITS_MAX {
        match process.streams.find(&key) {
            Standing::Open(hub) => {
                speaks(&hub, plan)?;
                if let Some(first) = join(&hub, plan, false, process) {
                    process.metrics.route(&plan.route.name).stream_reused.inc();
                    return Ok(Joined { first, hub });
                }
                process.streams.remove(&hub);
            }
            Standing::Opening(mut opening) => {
                // An opener that is gone without a word has given up: the next look finds nothing.
                let outcome = opening.wait_for(|outcome| *outcome != Opening::UnderWay).await;
                if let Ok(Opening::Failed(status)) = outcome.as_deref().copied() {
                    let detail = "the worker of this shared stream could not be reached a moment ago";
                    return Err(Refusal::new(status, "shared-stream", detail).into());
                }
            }
            Standing::Free(opener) => return open(plan, share, opener, process).await,
        }
    }
    let detail = "this shared stream is being opened by others, without success so far";
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "shared-stream", detail).into())
}

/// A stream has one subprotocol, which its first viewer and the worker have agreed on.
fn speaks(hub: &Hub, plan: &Plan) -> Result<(), Refusal> {
    let offers = |protocol: &str| plan.protocols.iter().any(|offer| offer == protocol);
    let Some(protocol) = hub.pipe.protocol.as_deref().filter(|protocol| !offers(protocol)) else {
        return Ok(());
    };
    let detail = format!("this stream is shared and speaks the subprotocol '{protocol}', which was not offered");
    Err(Refusal::new(StatusCode::CONFLICT, "subprotocol", detail))
}

fn join(hub: &Arc<Hub>, plan: &Plan, first: bool, process: &Process) -> Option<FirstAttach> {
    let seat = hub.join(first)?;
    let link = ViewerLink::new(hub.clone(), seat, plan.settings.down, process.metrics.route(&plan.route.name));
    let protocol = hub.pipe.protocol.as_deref().map(str::to_owned);
    Some(FirstAttach { attach: Attach::viewer(link), headers: HeaderMap::new(), protocol, compression: None })
}

/// Dials the worker, and starts the stream's own pipe on this thread.
async fn open(plan: &Plan, share: &Share, opener: Opener, process: &Arc<Process>) -> Result<Joined, Refused> {
    let pipe = PipeId::from_bytes(rand::random());
    let mut plan_of_stream = Plan { pipe, settings: share.stream.clone(), announced: None, ..plan.clone() };
    let mut opened = match first_attach(&plan_of_stream, None, process).await {
        Ok(opened) => opened,
        Err(none) => {
            let refused = refuse_workerless(none, &plan.route);
            // What this client may not, another may; but a worker that is out of reach is so for all.
            if refused.status().is_server_error() || refused.status() == StatusCode::TOO_MANY_REQUESTS {
                opener.failed(refused.status());
            }
            return Err(refused);
        }
    };
    plan_of_stream.protocol = opened.protocol.map(String::into_boxed_str);
    let facts = PipeFacts {
        id: pipe,
        route: plan.route.clone(),
        key: plan.key.clone(),
        client: "shared".to_owned(),
        named: false,
        protocol: plan_of_stream.protocol.clone(),
        aware: false,
        compression: Compression::Off(Uncompressed::Shared),
        sharing: Sharing::Stream(AtomicUsize::new(0)),
        request_id: String::new(),
    };
    let said = opened.attach.labels.take();
    let mut driver = Driver::new(opened.attach, Arc::new(plan_of_stream), facts, process.clone());
    // Before a viewer joins: what the worker says holds for all viewers.
    driver.heed_labels(said);
    let entry = driver.entry().clone();
    let counted = process.metrics.route(&plan.route.name).open_stream();
    let hub = Arc::new(Hub::new(opener.key.clone(), entry, share.settings, process.clock));
    let link = StreamLink::new(hub.clone(), process.streams.clone(), process.events.clone(), counted);
    let joined = join(&hub, plan, true, process);
    driver.start(ClientLink::Viewers(Box::new(link)), None);
    tokio::spawn(driver);
    opener.opened(hub.clone());
    let Some(first) = joined else {
        let detail = "the shared stream ended as it began";
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, "shared-stream", detail).into());
    };
    Ok(Joined { first: FirstAttach { headers: opened.headers, ..first }, hub })
}
