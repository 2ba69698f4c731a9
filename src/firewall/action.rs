//! What a rule can do with a packet.

use crate::nftables::list::Verdict;
use nix::libc;

/// How a rule ends a packet's evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Accept,
    /// It is dropped or rejected.
    End,
    /// Its connection is translated, and no further rule of its kind is looked at.
    Translate,
    /// A program decides (`queue`).
    Unknown,
    /// What it does is not followed.
    NotFollowed,
    Jump(String),
    Goto(String),
    Return,
    Continue,
}

impl From<Verdict> for Action {
    fn from(Verdict { code, chain }: Verdict) -> Self {
        let chain = chain.unwrap_or_default();
        match code {
            libc::NF_ACCEPT => Action::Accept,
            libc::NF_DROP => Action::End,
            libc::NFT_JUMP => Action::Jump(chain),
            libc::NFT_GOTO => Action::Goto(chain),
            libc::NFT_RETURN => Action::Return,
            libc::NFT_CONTINUE | libc::NFT_BREAK => Action::Continue,
            code if code & libc::NF_VERDICT_MASK == libc::NF_QUEUE => Action::Unknown,
            _ => Action::NotFollowed,
        }
    }
}
