//! Messages that the kernel carries out all together or not at all.
//!
//! nftnl's own batch splits at a page's end into two transactions and requests an acknowledgement of
//! each message; here the whole is one buffer, and the kernel acknowledges only its last message,
//! unless one fails.

use super::libnftnl::Scratch;
use crate::netlink::{NLMSG_FLAGS, Request};
use nftnl::{MsgType, NlMsg};
use nix::libc;

/// A transaction on nf_tables that grows message by message.
pub struct Batch {
    bytes: Vec<u8>,
    /// What each message does, in order.
    steps: Vec<Step>,
    /// Where each message starts in `bytes`.
    starts: Vec<usize>,
    scratch: Scratch,
}

/// What one message of a batch does. The numbers are indexes into the ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Adds or deletes the table.
    Table,
    /// Adds or deletes this chain.
    Chain(usize),
    /// Adds this set.
    Set(usize),
    /// Adds elements to this set.
    Elements(usize),
    /// Adds or deletes the flowtable, with the chain that fills it.
    Flowtable,
    /// Adds this rule of this chain.
    Rule(usize, usize),
}

impl Batch {
    /// An empty transaction. With a generation the kernel refuses it (ERESTART) if any process has
    /// changed the ruleset since that generation was read.
    pub fn new(generation: Option<u32>) -> Self {
        let mut begin = delimiter(libc::NFNL_MSG_BATCH_BEGIN, 0);
        if let Some(generation) = generation {
            begin = begin.attribute(libc::NFNL_BATCH_GENID as u16, &generation.to_be_bytes());
        }
        Batch {
            bytes: begin.bytes().to_vec(),
            steps: Vec::new(),
            starts: Vec::new(),
            scratch: Scratch::new(),
        }
    }

    /// Adds a message of nftnl's.
    pub fn add(&mut self, step: Step, message: &impl NlMsg, kind: MsgType) {
        let sequence = self.begin(step);
        let written = self.scratch.write(message, sequence, kind);
        self.bytes.extend_from_slice(written);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Adds a message.
    pub fn push(&mut self, step: Step, message: Request) {
        let sequence = self.begin(step);
        let message = message.with_sequence(sequence);
        self.bytes.extend_from_slice(message.bytes());
    }

    /// Gives the sequence number of the message that follows.
    fn begin(&mut self, step: Step) -> u32 {
        self.steps.push(step);
        self.starts.push(self.bytes.len());
        self.steps.len() as u32
    }

    /// Ends the transaction.
    pub fn finish(mut self) -> Transaction {
        if let Some(start) = self.starts.last() {
            // Kernels before 6.10 do not acknowledge the end of a batch: ask for it one message earlier.
            let flags = start + NLMSG_FLAGS;
            let asked = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]])
                | libc::NLM_F_ACK as u16;
            self.bytes[flags..flags + 2].copy_from_slice(&asked.to_ne_bytes());
        }
        let end = delimiter(libc::NFNL_MSG_BATCH_END, self.steps.len() as u32 + 1);
        self.bytes.extend_from_slice(end.bytes());
        Transaction {
            bytes: self.bytes,
            steps: self.steps,
            starts: self.starts,
        }
    }
}

/// A transaction that is ready to be sent.
pub struct Transaction {
    bytes: Vec<u8>,
    steps: Vec<Step>,
    starts: Vec<usize>,
}

impl Transaction {
    /// The bytes to send, in one piece.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The sequence number of the message that is acknowledged if none fails.
    pub fn last_sequence(&self) -> u32 {
        self.steps.len() as u32
    }

    /// What each message does, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What the message with this sequence number does; `None` for the batch's begin and end.
    pub fn step(&self, sequence: u32) -> Option<Step> {
        let index = (sequence as usize).checked_sub(1)?;
        self.steps.get(index).copied()
    }

    /// The bytes of the message with this sequence number from `offset` on.
    pub fn message_from(&self, sequence: u32, offset: usize) -> Option<&[u8]> {
        let index = (sequence as usize).checked_sub(1)?;
        self.bytes
            .get(self.starts.get(index)?.checked_add(offset)?..)
    }
}

fn delimiter(message: i32, sequence: u32) -> Request {
    let resource = libc::NFNL_SUBSYS_NFTABLES as u16;
    Request::with_resource(message as u16, 0, libc::AF_UNSPEC as u8, resource, sequence)
}
