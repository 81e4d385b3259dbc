//! A session whose keys rustls has, by its interface without buffers.
//!
//! Invariant: rustls keeps no byte that is on its way. What it has taken in is whole records; what it has to say is
//! taken from it at once, but for one thing, which [`Library::take_apart`] has it say.

use std::io::{self, IoSlice};
use std::ops::Deref;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeTlsData, UnbufferedConnectionCommon, UnbufferedStatus, WriteTraffic};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets, HandshakeKind, ProtocolVersion};
use tokio::io::ReadBuf;

use super::frozen::{Keys, Place, TrafficKey};
use super::records::HEAD_BYTES;
use super::{Held, Sealed, Space, seal_pieces};
use crate::net::HandOverError;

/// Keys that a frozen session takes along for when those that seal are used up: as many times as many records follow.
pub(super) const SPARE_KEYS: usize = 8;

/// A session whose keys rustls has, of either side.
pub(super) struct Library<S>(pub(super) S);

/// A side of a session, by what rustls has for each apart.
pub(super) trait Side: Deref<Target = UnbufferedConnectionCommon<Self::Data>> {
    type Data;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), rustls::Error>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), rustls::Error> {
        self.dangerous_into_kernel_connection()
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), rustls::Error> {
        self.dangerous_into_kernel_connection()
    }
}

impl<S: Side> Library<S> {
    pub(super) fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    pub(super) fn version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    pub(super) fn speaks_http2(&self) -> bool {
        self.0.alpn_protocol() == Some(b"h2")
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.0.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub(super) fn peers_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.0.peer_certificates()?.first()
    }

    /// Opens all whole records; how many bytes of them are done with.
    pub(super) fn open(
        &mut self,
        records: &mut [u8],
        into: &mut ReadBuf<'_>,
        held: &mut Held,
    ) -> Result<usize, rustls::Error> {
        let (mut used, all) = (0, records.len());
        loop {
            let UnbufferedStatus { discard, state } = self.0.process(&mut records[used..]);
            let error = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        held.take_opened(record.payload, into);
                        used += record.discard;
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut held.outgoing).err(),
                Ok(ConnectionState::TransmitTlsData(transmitted)) => {
                    transmitted.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    held.ends.peers = true;
                    None
                }
                // Nothing behind the end counts.
                Ok(_) => return Ok(if held.ends.peers { all } else { used + discard }),
                Err(error) => Some(error),
            };
            used += discard;
            if let Some(error) = error {
                self.tell_alert(&mut records[used..], held);
                return Err(error);
            }
        }
    }

    /// Takes the alert that TLS has for the peer. Then the record that it is about must not be looked at again: that would
    /// be a second alert.
    fn tell_alert(&mut self, records: &mut [u8], held: &mut Held) {
        while self.0.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(data)) = self.0.process(records).state else { return };
            if encode(data, &mut held.outgoing).is_err() {
                return;
            }
        }
    }

    /// Seals as much of `slices` as goes at once, and behind `all` that ever comes the word that nothing follows.
    pub(super) fn seal(
        &mut self,
        slices: &[IoSlice<'_>],
        all: Option<usize>,
        space: &mut Space,
        held: &mut Held,
    ) -> io::Result<Sealed> {
        let mut tls = self.writable(held)?;
        let mut sealed = seal_pieces(slices, space, |piece, room| tls.encrypt(piece, room).map_err(io::Error::other))?;
        if all == Some(sealed.taken) {
            let room = &mut space.sealed[sealed.bytes..];
            sealed.bytes += tls.queue_close_notify(room).map_err(io::Error::other)?;
            held.ends.ours = true;
        }
        Ok(sealed)
    }

    /// Seals into `room` that nothing follows; the bytes of that.
    pub(super) fn end(&mut self, room: &mut [u8], held: &mut Held) -> io::Result<usize> {
        self.writable(held)?.queue_close_notify(room).map_err(io::Error::other)
    }

    /// TLS, ready to seal; what it has to say before is to be written before.
    fn writable(&mut self, held: &mut Held) -> io::Result<WriteTraffic<'_, S::Data>> {
        // What has not come whole is shown again: some of it may be known already.
        loop {
            match self.0.process(&mut held.incoming).state.map_err(io::Error::other)? {
                ConnectionState::WriteTraffic(_) => break,
                ConnectionState::EncodeTlsData(data) => {
                    encode(data, &mut held.outgoing).map_err(io::Error::other)?;
                }
                ConnectionState::TransmitTlsData(transmitted) => transmitted.done(),
                ConnectionState::PeerClosed => held.ends.peers = true,
                _ => return Err(io::ErrorKind::NotConnected.into()),
            }
        }
        match self.0.process(&mut held.incoming).state {
            Ok(ConnectionState::WriteTraffic(tls)) => Ok(tls),
            Ok(_) | Err(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Why the session cannot go to another process just now; nothing if it can.
    pub(super) fn stays(&self, held: &Held) -> Option<HandOverError> {
        if self.version() != Some(ProtocolVersion::TLSv1_3) {
            Some(HandOverError::Tls12)
        } else if self.speaks_http2() {
            Some(HandOverError::Http2)
        } else if has_whole_record(&held.incoming) {
            // Records that are whole were opened, but for those of a message of TLS's own that has not come whole.
            Some(HandOverError::AmidMessage)
        } else {
            None
        }
    }

    /// Takes the keys out of a session that does not stay; what waits to be said is `held` then.
    pub(super) fn take_apart(mut self, held: &mut Held) -> Result<Keys, HandOverError> {
        let failed = |error: &dyn std::fmt::Display| HandOverError::Keys(error.to_string());
        if !held.ends.ours {
            self.say_what_waits(held).map_err(|error| failed(&error))?;
        }
        let (secrets, mut following) = self.0.into_kernel().map_err(|error| failed(&error))?;
        let key = |secrets: &ConnectionTrafficSecrets| {
            TrafficKey::of(secrets).ok_or_else(|| failed(&"a cipher that is not known"))
        };
        let (suite, writes) = key(&secrets.tx.1)?;
        let (_, reads) = key(&secrets.rx.1)?;
        let spares = (0..SPARE_KEYS).map(|_| {
            let (_, secrets) = following.update_tx_secret().map_err(|error| failed(&error))?;
            key(&secrets).map(|(_, key)| key)
        });
        let spares = spares.collect::<Result<_, _>>()?;
        let reads = Place { key: reads, sequence: secrets.rx.0 };
        let writes = Place { key: writes, sequence: secrets.tx.0 };
        Ok(Keys { suite, reads, writes, spares, skipped: 0 })
    }

    /// Has TLS say what it keeps for when something is sealed: the answer to a KeyUpdate, with which its keys change.
    fn say_what_waits(&mut self, held: &mut Held) -> io::Result<()> {
        // It is said before it is seen that there is no room, and nothing is sealed.
        let _ = self.writable(held)?.encrypt(b"?", &mut []);
        self.writable(held).map(drop)
    }
}

/// Whether `bytes` begin with all of a record.
fn has_whole_record(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|[_, _, _, high, low]: &[u8; HEAD_BYTES]| {
        bytes.len() >= HEAD_BYTES + usize::from(u16::from_be_bytes([*high, *low]))
    })
}

/// Puts a message of TLS's own behind `sealed`.
fn encode<D>(mut data: EncodeTlsData<'_, D>, sealed: &mut Vec<u8>) -> Result<(), rustls::Error> {
    use rustls::unbuffered::EncodeError::{AlreadyEncoded, InsufficientSize};
    let at = sealed.len();
    loop {
        match data.encode(&mut sealed[at..]) {
            Ok(bytes) => {
                sealed.truncate(at + bytes);
                return Ok(());
            }
            Err(InsufficientSize(wanted)) => sealed.resize(at + wanted.required_size, 0),
            Err(error @ AlreadyEncoded) => return Err(rustls::Error::General(error.to_string())),
        }
    }
}
