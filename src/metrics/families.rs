//! The metric families by name: the list that SPEC section 4 fixes, and nothing else.

use prometheus::{Counter, Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::maker::{Maker, forget};
use super::register;

/// From a handshake that stays on the machine to one that waits for a slow worker.
const HANDSHAKE_SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// From a warm backend at hand to the end of a long grace.
const REATTACH_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];
/// From a refused login to a screen that is watched all day.
const PIPE_SECONDS: [f64; 11] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0];

/// One field per family; the field is the name without the prefix.
#[derive(Debug, Clone)]
pub struct Families {
    pub build_info: IntGaugeVec,
    pub connections: IntGaugeVec,
    pub connections_total: IntCounterVec,
    pub proxy_headers_total: IntCounterVec,
    pub http2_connections: IntGauge,
    pub http2_connection_ends_total: IntCounterVec,
    pub http2_streams: IntGaugeVec,
    pub http2_streams_total: IntCounterVec,
    pub tls_handshakes_total: IntCounterVec,
    pub tls_handshake_duration_seconds: HistogramVec,
    pub tls_reloads_total: IntCounterVec,
    pub tls_certificate_not_after_timestamp_seconds: IntGaugeVec,
    pub handshakes_total: IntCounterVec,
    pub handshake_duration_seconds: HistogramVec,
    pub pipes: IntGaugeVec,
    pub pipe_levels: IntGaugeVec,
    pub pipes_total: IntCounterVec,
    pub pipe_duration_seconds: HistogramVec,
    pub pipe_closes_total: IntCounterVec,
    pub interruptions_total: IntCounterVec,
    pub reattach_total: IntCounterVec,
    pub reattach_duration_seconds: HistogramVec,
    pub reattach_dials: IntGaugeVec,
    pub reattach_held: IntGaugeVec,
    pub moves_total: IntCounterVec,
    pub replay_buffer_bytes: IntGaugeVec,
    pub replay_buffer_limit_bytes: IntGauge,
    pub replay_buffer_pool_bytes: IntGaugeVec,
    pub replay_overflows_total: IntCounterVec,
    pub replayed_messages_total: IntCounterVec,
    pub in_doubt_messages_total: IntCounterVec,
    pub lost_messages_total: IntCounterVec,
    pub dropped_messages_total: IntCounterVec,
    pub duplicates_dropped_total: IntCounterVec,
    pub gaps_total: IntCounterVec,
    pub labels_refused_total: IntCounterVec,
    pub aware_pipes: IntGaugeVec,
    pub messages_total: IntCounterVec,
    pub message_bytes_total: IntCounterVec,
    pub read_paused_total: IntCounterVec,
    pub unmasked_control_frames_total: IntCounterVec,
    pub prologue_bytes: IntGaugeVec,
    pub prologue_sent_total: IntCounterVec,
    pub prologue_swallowed_total: IntCounterVec,
    pub prologue_failures_total: IntCounterVec,
    pub ready: IntGauge,
    pub pool_backends: IntGaugeVec,
    pub pool_min_backends: IntGaugeVec,
    pub backend_up: IntGaugeVec,
    pub backend_state: IntGaugeVec,
    pub backend_pipes: IntGaugeVec,
    pub backend_reported_memory_bytes: IntGaugeVec,
    pub backend_reported_memory_limit_bytes: IntGaugeVec,
    pub backend_reported_cpu_percent: IntGaugeVec,
    pub backend_connects_total: IntCounterVec,
    pub backend_connect_duration_seconds: HistogramVec,
    pub backend_ejections_total: IntCounterVec,
    pub leases_expired_total: IntCounterVec,
    pub rate_limited_total: IntCounterVec,
    pub http_requests: IntGaugeVec,
    pub http_requests_total: IntCounterVec,
    pub http_request_duration_seconds: HistogramVec,
    pub polls_parked: IntGaugeVec,
    pub requests_waiting: IntGaugeVec,
    pub waits_total: IntCounterVec,
    pub learned_keys_total: IntCounterVec,
    pub rate_limit_entries: IntGauge,
    pub key_statistics_entries: IntGauge,
    pub shared_streams: IntGaugeVec,
    pub shared_stream_reuse_total: IntCounterVec,
    pub evictions_total: IntCounterVec,
    pub trace_spans_total: IntCounterVec,
    pub hook_events_total: IntCounterVec,
    pub hook_attempts_total: IntCounterVec,
    pub hook_queue_events: IntGauge,
    pub client_resumes_total: IntCounterVec,
    pub poll_requests_total: IntCounterVec,
    pub auth_requests_total: IntCounterVec,
    pub auth_duration_seconds: HistogramVec,
    pub attach_parked: IntGaugeVec,
    pub attach_taken_total: IntCounterVec,
    pub attach_wait_seconds: HistogramVec,
    pub attach_requests_total: IntCounterVec,
    pub workers: IntGaugeVec,
    pub worker_starts_total: IntCounterVec,
    pub worker_recycles_total: IntCounterVec,
    pub worker_failures_total: IntCounterVec,
    pub worker_crash_loops_total: IntCounterVec,
    pub worker_output_dropped_total: IntCounterVec,
    pub worker_start_duration_seconds: HistogramVec,
    pub worker_rss_bytes: IntGaugeVec,
    pub memory_bytes: IntGaugeVec,
    pub memory_limit_bytes: IntGauge,
    pub log_dropped_total: IntCounter,
    pub admin_requests_total: IntCounterVec,
    pub tap_messages_total: IntCounterVec,
    pub config_last_reload_successful: IntGauge,
    pub upgrades_total: IntCounterVec,
    pub upgrade_pipes_total: IntCounterVec,
    pub upgrade_pause_seconds: HistogramVec,
    pub config_last_reload_success_timestamp_seconds: IntGauge,
    pub runtime_tasks: IntGaugeVec,
    pub process_cpu_seconds_total: Counter,
    pub process_resident_memory_bytes: IntGauge,
    pub process_virtual_memory_bytes: IntGauge,
    pub process_open_fds: IntGauge,
    pub process_max_fds: IntGauge,
    pub process_threads: IntGauge,
    pub process_start_time_seconds: Gauge,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        let at = Maker { registry };
        Self {
            build_info: at.gauges("build_info", "Always 1; the version is the label.", &["version"]),
            connections: at.gauges("connections", "Open connections.", &["listener"]),
            connections_total: at.counters(
                "connections_total",
                "Connections by what became of them.",
                &["listener", "result"],
            ),
            proxy_headers_total: at.counters(
                "proxy_headers_total",
                "Connections on which a PROXY header was looked for, by what they began with.",
                &["listener", "result"],
            ),
            http2_connections: at.gauge("http2_connections", "Open connections that speak HTTP/2."),
            http2_connection_ends_total: at.counters(
                "http2_connection_ends_total",
                "Connections that spoke HTTP/2, by why they ended.",
                &["reason"],
            ),
            http2_streams: at.gauges("http2_streams", "Open streams of HTTP/2 by what is on them.", &["kind"]),
            http2_streams_total: at.counters(
                "http2_streams_total",
                "Streams of HTTP/2 by what became of their request.",
                &["result"],
            ),
            tls_handshakes_total: at.counters(
                "tls_handshakes_total",
                "TLS handshakes of clients by what became of them.",
                &["listener", "result", "version"],
            ),
            tls_handshake_duration_seconds: at.histograms(
                "tls_handshake_duration_seconds",
                "From an accepted connection to the end of its TLS handshake.",
                &["listener"],
                &HANDSHAKE_SECONDS,
            ),
            tls_reloads_total: at.counters(
                "tls_reloads_total",
                "Changed files of certificates by what became of them.",
                &["result"],
            ),
            tls_certificate_not_after_timestamp_seconds: at.gauges(
                "tls_certificate_not_after_timestamp_seconds",
                "Unix time at which a certificate in force expires.",
                &["listener", "name"],
            ),
            handshakes_total: at.counters("handshakes_total", "Answers to WebSocket handshakes.", &["route", "code"]),
            handshake_duration_seconds: at.histograms(
                "handshake_duration_seconds",
                "From a handshake's head to its 101.",
                &["route"],
                &HANDSHAKE_SECONDS,
            ),
            pipes: at.gauges("pipes", "Live pipes.", &["route", "state"]),
            pipe_levels: at.gauges(
                "pipe_levels",
                "Live pipes by how sure a confirmation on a lane is.",
                &["route", "lane", "level"],
            ),
            pipes_total: at.counters("pipes_total", "Pipes opened.", &["route"]),
            pipe_duration_seconds: at.histograms(
                "pipe_duration_seconds",
                "How long closed pipes lived.",
                &["route"],
                &PIPE_SECONDS,
            ),
            pipe_closes_total: at.counters(
                "pipe_closes_total",
                "Pipes closed, by who ended them and the code the client got.",
                &["route", "side", "code"],
            ),
            interruptions_total: at.counters(
                "interruptions_total",
                "Backend legs lost under a live pipe.",
                &["pool", "reason"],
            ),
            reattach_total: at.counters("reattach_total", "How interruptions ended.", &["pool", "result"]),
            reattach_duration_seconds: at.histograms(
                "reattach_duration_seconds",
                "From an interruption to the next backend's 101.",
                &["pool"],
                &REATTACH_SECONDS,
            ),
            reattach_dials: at.gauges(
                "reattach_dials",
                "Dials of pipes that lost or leave a backend.",
                &["pool", "state"],
            ),
            reattach_held: at.gauges(
                "reattach_held",
                "Pipes that want another backend, by what keeps them from it.",
                &["pool", "reason"],
            ),
            moves_total: at.counters("moves_total", "Planned moves by what became of them.", &["pool", "result"]),
            replay_buffer_bytes: at.gauges("replay_buffer_bytes", "Bytes held in replay buffers.", &["lane"]),
            replay_buffer_pool_bytes: at.gauges(
                "replay_buffer_pool_bytes",
                "Bytes that the pipes of one pool hold in replay buffers.",
                &["pool"],
            ),
            replay_buffer_limit_bytes: at
                .gauge("replay_buffer_limit_bytes", "Bytes that all replay buffers may hold together."),
            replay_overflows_total: at.counters(
                "replay_overflows_total",
                "Times a replay buffer was full.",
                &["route", "policy"],
            ),
            replayed_messages_total: at.counters(
                "replayed_messages_total",
                "Messages sent again after a reattach.",
                &["route", "lane"],
            ),
            in_doubt_messages_total: at.counters(
                "in_doubt_messages_total",
                "Messages sent but unconfirmed when their receiver was lost.",
                &["route", "lane"],
            ),
            lost_messages_total: at.counters("lost_messages_total", "Messages given up.", &["route", "lane", "reason"]),
            dropped_messages_total: at.counters(
                "dropped_messages_total",
                "Messages dropped on purpose while their pipe lived on.",
                &["route", "lane", "reason"],
            ),
            duplicates_dropped_total: at.counters(
                "duplicates_dropped_total",
                "Messages that aware peers sent again and that had come before.",
                &["route", "lane"],
            ),
            gaps_total: at.counters(
                "gaps_total",
                "Gaps that aware peers were told of or told.",
                &["route", "lane", "why"],
            ),
            labels_refused_total: at.counters(
                "labels_refused_total",
                "Answers of workers whose labels were not taken.",
                &["route"],
            ),
            aware_pipes: at.gauges(
                "aware_pipes",
                "Live pipes whose clients number their messages.",
                &["route", "transport"],
            ),
            messages_total: at.counters("messages_total", "Messages relayed.", &["route", "lane"]),
            message_bytes_total: at.counters("message_bytes_total", "Payload bytes relayed.", &["route", "lane"]),
            read_paused_total: at.counters(
                "read_paused_total",
                "Times a sender was not read for lack of room.",
                &["route", "lane"],
            ),
            unmasked_control_frames_total: at.counters(
                "unmasked_control_frames_total",
                "Control frames that a client sent without a mask.",
                &["route"],
            ),
            prologue_bytes: at.gauges("prologue_bytes", "Bytes kept of conversations for the next worker.", &["route"]),
            prologue_sent_total: at.counters(
                "prologue_sent_total",
                "Messages of conversations that a new worker was told again.",
                &["route"],
            ),
            prologue_swallowed_total: at.counters(
                "prologue_swallowed_total",
                "Answers of workers held back because the client had had them.",
                &["route"],
            ),
            prologue_failures_total: at.counters(
                "prologue_failures_total",
                "Conversations that could not be said again as they should.",
                &["route", "why"],
            ),
            ready: at.gauge("ready", "Whether new clients should come here, as /health/ready says."),
            pool_backends: at.gauges("pool_backends", "Backends of the pool by how they are.", &["pool", "state"]),
            pool_min_backends: at.gauges("pool_min_backends", "Eligible backends the pool should have.", &["pool"]),
            backend_up: at.gauges("backend_up", "Whether health checks see the backend.", &["pool", "backend"]),
            backend_state: at.gauges(
                "backend_state",
                "Facts that decide whether the backend is eligible.",
                &["pool", "backend", "state"],
            ),
            backend_pipes: at.gauges("backend_pipes", "Pipes attached to the backend.", &["pool", "backend"]),
            backend_reported_memory_bytes: at.gauges(
                "backend_reported_memory_bytes",
                "Memory that the worker's health page says it uses.",
                &["pool", "backend"],
            ),
            backend_reported_memory_limit_bytes: at.gauges(
                "backend_reported_memory_limit_bytes",
                "Memory that the worker's health page says it may use.",
                &["pool", "backend"],
            ),
            backend_reported_cpu_percent: at.gauges(
                "backend_reported_cpu_percent",
                "How busy the worker's health page says it is.",
                &["pool", "backend"],
            ),
            backend_connects_total: at.counters(
                "backend_connects_total",
                "Dials of the backend.",
                &["pool", "backend", "result"],
            ),
            backend_connect_duration_seconds: at.histograms(
                "backend_connect_duration_seconds",
                "From a dial to the backend's 101.",
                &["pool"],
                &HANDSHAKE_SECONDS,
            ),
            backend_ejections_total: at.counters(
                "backend_ejections_total",
                "Backends put aside for failing pipes.",
                &["pool", "reason"],
            ),
            leases_expired_total: at.counters("leases_expired_total", "Leases not renewed in time.", &["pool"]),
            rate_limited_total: at.counters(
                "rate_limited_total",
                "Connections, requests and pipes that met a limit.",
                &["route", "limit"],
            ),
            http_requests: at.gauges("http_requests", "Plain requests that are being answered.", &["route"]),
            http_requests_total: at.counters(
                "http_requests_total",
                "Answers to plain requests; 499 is a client that went away before its answer.",
                &["route", "code"],
            ),
            http_request_duration_seconds: at.histograms(
                "http_request_duration_seconds",
                "From a plain request's head to the head of its answer.",
                &["route"],
                &REATTACH_SECONDS,
            ),
            polls_parked: at.gauges("polls_parked", "Plain requests that wait for their worker's answer.", &["route"]),
            key_statistics_entries: at.gauge("key_statistics_entries", "Route keys that statistics are kept of."),
            requests_waiting: at.gauges(
                "requests_waiting",
                "Handshakes and plain requests that wait for a worker to take them.",
                &["route"],
            ),
            learned_keys_total: at.counters(
                "learned_keys_total",
                "Answers in which a worker's key was looked for.",
                &["route", "result"],
            ),
            waits_total: at.counters("waits_total", "Requests that found no worker at once.", &["route", "result"]),
            rate_limit_entries: at.gauge("rate_limit_entries", "Keys and addresses that limits are counted for."),
            shared_streams: at.gauges("shared_streams", "Worker connections that pipes share.", &["route"]),
            shared_stream_reuse_total: at.counters(
                "shared_stream_reuse_total",
                "Pipes that found the worker connection they share open already.",
                &["route"],
            ),
            evictions_total: at.counters("evictions_total", "Pipes ended because memory was out.", &["policy"]),
            trace_spans_total: at.counters("trace_spans_total", "Ended spans by what became of them.", &["result"]),
            hook_events_total: at.counters(
                "hook_events_total",
                "Events for the hooks by what became of them.",
                &["result"],
            ),
            hook_attempts_total: at.counters(
                "hook_attempts_total",
                "Requests to the hooks by what came of them.",
                &["result"],
            ),
            hook_queue_events: at.gauge("hook_queue_events", "Events that wait for the hooks."),
            auth_requests_total: at.counters(
                "auth_requests_total",
                "Questions who may connect, by what was answered.",
                &["route", "result"],
            ),
            auth_duration_seconds: at.histograms(
                "auth_duration_seconds",
                "From a question who may connect to its answer.",
                &["route"],
                &HANDSHAKE_SECONDS,
            ),
            client_resumes_total: at.counters(
                "client_resumes_total",
                "Clients that came back to their pipes, or should have.",
                &["route", "transport", "result"],
            ),
            poll_requests_total: at.counters(
                "poll_requests_total",
                "Requests of clients that are on no socket.",
                &["route", "result"],
            ),
            attach_parked: at.gauges("attach_parked", "Connections that workers have parked.", &["pool"]),
            attach_taken_total: at.counters(
                "attach_taken_total",
                "Dials of workers that dial in, by what came of taking a parked connection.",
                &["pool", "result"],
            ),
            attach_wait_seconds: at.histograms(
                "attach_wait_seconds",
                "How long dials waited for a parked connection.",
                &["pool"],
                &HANDSHAKE_SECONDS,
            ),
            attach_requests_total: at.counters(
                "attach_requests_total",
                "Requests of workers that dial in, by what became of them.",
                &["result"],
            ),
            workers: at.gauges("workers", "Workers that Holdline runs, by their state.", &["group", "state"]),
            worker_starts_total: at.counters("worker_starts_total", "Started workers.", &["group", "reason"]),
            worker_recycles_total: at.counters("worker_recycles_total", "Replaced workers.", &["group", "reason"]),
            worker_failures_total: at.counters("worker_failures_total", "Failed workers.", &["group", "reason"]),
            worker_crash_loops_total: at.counters(
                "worker_crash_loops_total",
                "Workers that failed several times in a row.",
                &["group"],
            ),
            worker_output_dropped_total: at.counters(
                "worker_output_dropped_total",
                "Lines of workers that were too many for the log.",
                &["group"],
            ),
            worker_start_duration_seconds: at.histograms(
                "worker_start_duration_seconds",
                "From the start of a worker's process to its being ready.",
                &["group"],
                &REATTACH_SECONDS,
            ),
            worker_rss_bytes: at.gauges(
                "worker_rss_bytes",
                "Resident memory of a worker with all that it has started.",
                &["group", "worker"],
            ),
            memory_bytes: at.gauges("memory_bytes", "Memory in use.", &["kind"]),
            memory_limit_bytes: at.gauge("memory_limit_bytes", "Memory the process may use."),
            log_dropped_total: at.counter("log_dropped_total", "Log records that stderr did not take."),
            tap_messages_total: at.counters(
                "tap_messages_total",
                "Messages of pipes that operators look on at, by what became of them.",
                &["result"],
            ),
            admin_requests_total: at.counters(
                "admin_requests_total",
                "Admin requests, by the pattern of their path.",
                &["route", "method", "code"],
            ),
            config_last_reload_successful: at
                .gauge("config_last_reload_successful", "Whether the last reload took effect."),
            upgrades_total: at.counters("upgrades_total", "Live upgrades, by what they came to.", &["result"]),
            upgrade_pipes_total: at.counters(
                "upgrade_pipes_total",
                "Pipes of live upgrades, by what became of them.",
                &["result"],
            ),
            upgrade_pause_seconds: at.histograms(
                "upgrade_pause_seconds",
                "For how long pipes that came from another process had stood still.",
                &[],
                &HANDSHAKE_SECONDS,
            ),
            config_last_reload_success_timestamp_seconds: at.gauge(
                "config_last_reload_success_timestamp_seconds",
                "Unix time at which the configuration in force was taken.",
            ),
            runtime_tasks: at.gauges("runtime_tasks", "Live tasks of the async runtimes.", &["runtime"]),
            process_cpu_seconds_total: register(
                registry,
                Counter::new("process_cpu_seconds_total", "User and system CPU time in seconds."),
            ),
            process_resident_memory_bytes: at.process("process_resident_memory_bytes", "Resident memory in bytes."),
            process_virtual_memory_bytes: at.process("process_virtual_memory_bytes", "Virtual memory in bytes."),
            process_open_fds: at.process("process_open_fds", "Open file descriptors."),
            process_max_fds: at.process("process_max_fds", "File descriptors the process may open."),
            process_threads: at.process("process_threads", "Threads of the process."),
            process_start_time_seconds: register(
                registry,
                Gauge::new("process_start_time_seconds", "Unix time the process started at."),
            ),
        }
    }

    /// Removes every series whose label `label` has this value.
    pub(super) fn forget_label(&self, label: &str, value: &str) {
        self.counters().into_iter().for_each(|family| forget(family, label, value));
        self.histograms().into_iter().for_each(|family| forget(family, label, value));
        forget(&self.pipes, label, value);
        forget(&self.pipe_levels, label, value);
        forget(&self.aware_pipes, label, value);
        forget(&self.shared_streams, label, value);
        forget(&self.prologue_bytes, label, value);
        forget(&self.http_requests, label, value);
        forget(&self.polls_parked, label, value);
        forget(&self.requests_waiting, label, value);
        forget(&self.reattach_dials, label, value);
        forget(&self.reattach_held, label, value);
        forget(&self.replay_buffer_pool_bytes, label, value);
        forget(&self.attach_parked, label, value);
        forget(&self.pool_backends, label, value);
        forget(&self.pool_min_backends, label, value);
    }

    /// Removes every series of a group of workers.
    pub(super) fn forget_group(&self, name: &str) {
        let counters = [
            &self.worker_starts_total,
            &self.worker_recycles_total,
            &self.worker_failures_total,
            &self.worker_crash_loops_total,
            &self.worker_output_dropped_total,
        ];
        counters.into_iter().for_each(|family| forget(family, "group", name));
        forget(&self.worker_start_duration_seconds, "group", name);
        forget(&self.workers, "group", name);
        forget(&self.worker_rss_bytes, "group", name);
    }

    fn counters(&self) -> [&IntCounterVec; 32] {
        [
            &self.learned_keys_total,
            &self.waits_total,
            &self.handshakes_total,
            &self.pipes_total,
            &self.pipe_closes_total,
            &self.interruptions_total,
            &self.reattach_total,
            &self.moves_total,
            &self.replay_overflows_total,
            &self.replayed_messages_total,
            &self.in_doubt_messages_total,
            &self.lost_messages_total,
            &self.dropped_messages_total,
            &self.duplicates_dropped_total,
            &self.gaps_total,
            &self.labels_refused_total,
            &self.messages_total,
            &self.message_bytes_total,
            &self.read_paused_total,
            &self.unmasked_control_frames_total,
            &self.prologue_sent_total,
            &self.prologue_swallowed_total,
            &self.prologue_failures_total,
            &self.rate_limited_total,
            &self.http_requests_total,
            &self.client_resumes_total,
            &self.poll_requests_total,
            &self.auth_requests_total,
            &self.leases_expired_total,
            &self.backend_ejections_total,
            &self.shared_stream_reuse_total,
            &self.attach_taken_total,
        ]
    }

    fn histograms(&self) -> [&HistogramVec; 7] {
        [
            &self.handshake_duration_seconds,
            &self.http_request_duration_seconds,
            &self.auth_duration_seconds,
            &self.pipe_duration_seconds,
            &self.reattach_duration_seconds,
            &self.backend_connect_duration_seconds,
            &self.attach_wait_seconds,
        ]
    }
}
