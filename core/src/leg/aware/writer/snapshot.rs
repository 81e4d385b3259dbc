//! What a writer is still due goes to another process. The head of a half-written message is made again from its lane.

use super::AwareWriter;
use crate::aware::words::WORD_BYTES_MAX;
use crate::frame::{self, CONTROL_PAYLOAD_MAX, Opcode, Side};
use crate::leg::end::End;
use crate::replay::ReplayBuffer;
use crate::snapshot::{Read, Reader, SnapshotError, Writer, demand};

/// Bytes of control frames and words in a snapshot at most.
const CONTROL_FROZEN_MAX: usize = 1 << 20;

const PART: &str = "control words";

impl AwareWriter {
    /// Writes what the link is still due. The head of a half-written message is made again from its lane.
    pub fn freeze(&self, out: &mut Writer) {
        let Self {
            // The side is known where it is thawed, and the key is another one by then.
            peer: _,
            key: _,
            control,
            control_done,
            late_pong,
            made: _,
            planned: _,
            done,
            told,
            greeted,
            live_behind,
            ack,
            window_bytes,
            withheld,
            beat,
            fin,
            end,
            // They are counted with each write.
            gaps: _,
        } = self;
        let mut begun = 0;
        while let Some(len) = control_frame(&control[begun..], self.sender())
            && begun + len <= *control_done
        {
            begun += len;
        }
        out.bytes(&control[begun..]);
        out.size(control_done - begun);
        out.option(late_pong.as_ref(), |out, payload| out.bytes(payload));
        out.size(*done);
        out.count(*told);
        out.flag(*greeted);
        out.option(*live_behind, Writer::seq);
        out.option(*ack, |out, (n, d)| {
            out.count(n);
            out.count(d);
        });
        out.size(*window_bytes);
        out.flag(*withheld);
        out.count(*beat);
        out.flag(*fin);
        end.freeze(out);
    }

    pub fn thaw(input: &mut Reader<'_>, peer: Side) -> Read<Self> {
        let mut writer = Self::new(peer, 0);
        writer.control = input.bytes(CONTROL_FROZEN_MAX)?.to_vec();
        writer.control_done = input.size()?;
        writer.late_pong = input.option(|input| Ok(input.bytes(CONTROL_PAYLOAD_MAX)?.into()))?;
        writer.done = input.size()?;
        writer.told = input.count()?;
        writer.greeted = input.flag()?;
        writer.live_behind = input.option(Reader::seq)?;
        writer.ack = input.option(|input| Ok((input.count()?, input.count()?)))?;
        writer.window_bytes = input.size()?;
        writer.withheld = input.flag()?;
        writer.beat = input.count()?;
        writer.fin = input.flag()?;
        writer.end = End::thaw(input)?;
        let mut at = 0;
        while at < writer.control.len() {
            let len = control_frame(&writer.control[at..], writer.sender()).ok_or(SnapshotError::Malformed(PART))?;
            demand(at > 0 || writer.control_done < len, PART)?;
            at += len;
        }
        demand(at > 0 || writer.control_done == 0, PART)?;
        Ok(writer)
    }

    /// Makes the head of a half-written message again, for a writer that was thawed.
    pub fn fit(&mut self, buffer: &ReplayBuffer) -> Read<()> {
        demand(self.told <= buffer.accepted().0, PART)?;
        demand(self.live_behind.is_none_or(|seq| seq <= buffer.accepted()), PART)?;
        if self.done == 0 {
            return demand(!buffer.is_amid_message(), PART);
        }
        let message = buffer.messages_after(buffer.sent()).next().ok_or(SnapshotError::Malformed(PART))?;
        demand(self.told < message.seq().0, PART)?;
        let begun = self.head(&message, self.told, false).ok_or(SnapshotError::Malformed(PART))?;
        let left = message.wire_bytes() - begun.in_lane(self.done.min(begun.wire_bytes()));
        demand(self.done < begun.wire_bytes() && left == buffer.amid_bytes(), PART)?;
        self.planned.push_back(begun);
        Ok(())
    }
}

/// The length of the control frame or word of ours, in the place of `sender`, that `bytes` begin with.
fn control_frame(bytes: &[u8], sender: Side) -> Option<usize> {
    let header = frame::parse(bytes, sender).ok()??;
    let is_ours = header.fin && (header.opcode.is_control() || header.opcode == Opcode::Text);
    let len = header.header_len + header.payload_len as usize;
    (is_ours && len <= bytes.len() && header.payload_len as usize <= WORD_BYTES_MAX).then_some(len)
}
