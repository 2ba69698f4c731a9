//! The clients of the lock, any process of this network namespace: served within limits, so that none of
//! them, nor many, keep the instance from anything.

use super::super::rules::{Rules, RulesError};
use super::super::signals::Signals;
use super::proof::{self, Nonce};
use super::successor::hand_over;
use super::{HELLO, PROVED, RELOAD, RELOADED, REPLY_TIMEOUT};
use crate::config::Name;
use crate::lock::{Holder, Lock, Peer};
use crate::nftables::Nftables;
use log::{debug, info, warn};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::unistd::geteuid;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

/// How many clients are accepted in a second. The others wait in the kernel's queue, or are refused when
/// that is full.
const MAX_PER_SECOND: usize = 32;

/// How many may take their time. A further one takes the place of the oldest.
const MAX_WAITING: usize = 16;

/// How long a client may take to ask.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the lock rests when too many clients have come, and how often it is said that some came.
const SECOND: Duration = Duration::from_secs(1);

/// How often an instance without its name tries to get it.
const NAME_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is said that clients cannot be accepted.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);

/// What a client has asked for, and may.
pub enum Request {
    /// This process has replaced the instance.
    Replaced(Holder),
    /// The options are to be read again; [`Clients::answer_reload`] says what came of it.
    Reload,
}

/// The lock and its clients.
pub struct Clients {
    name: Name,
    /// `None` while another process has the name.
    lock: Option<Lock>,
    /// The lock, unless it rests, and the clients.
    files: Epoll,
    /// In the order in which they came.
    waiting: Vec<Client>,
    /// Those that have asked for a reload, and wait for what comes of it.
    reloads: Vec<UnixStream>,
    /// How many were accepted since then.
    accepted: (usize, Instant),
    /// When the lock is listened on again, or, if there is none, when the name is tried again.
    rests_until: Option<Instant>,
    warned: Option<Instant>,
    /// How many have proved nothing since it was last said.
    ignored: usize,
    said: Option<Instant>,
}

impl AsFd for Clients {
    /// Readable when [`serve`](Clients::serve) has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.files.0.as_fd()
    }
}

impl Clients {
    /// Without a lock, it tries to get it from time to time.
    pub fn new(name: &Name, lock: Option<Lock>) -> io::Result<Self> {
        let now = Instant::now();
        let mut clients = Clients {
            name: name.clone(),
            lock,
            files: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            waiting: Vec::new(),
            reloads: Vec::new(),
            accepted: (0, now),
            rests_until: Some(now + NAME_INTERVAL),
            warned: None,
            ignored: 0,
            said: None,
        };
        clients.listen()?;
        Ok(clients)
    }

    /// Has the kernel name this process as the holder of the lock.
    pub fn refresh_credentials(&self) -> io::Result<()> {
        self.lock.iter().try_for_each(Lock::refresh_credentials)
    }

    /// When [`serve`](Self::serve) has something to do though nothing is readable.
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|client| client.deadline);
        waiting.chain(self.rests_until).min()
    }

    /// Serves the clients. Waits for none, unless it has proved that it may replace the instance.
    pub fn serve(
        &mut self,
        rules: &Rules<'_>,
        signals: &Signals,
    ) -> Result<Option<Request>, RulesError> {
        if self.rests_until.is_some_and(|end| end <= Instant::now()) {
            self.wake()?;
        }
        self.accept(rules.nftables())?;
        for mut client in mem::take(&mut self.waiting) {
            match client.step() {
                Step::Waits if client.deadline > Instant::now() => self.waiting.push(client),
                Step::Proved if client.has_proved(rules.nftables()) => {
                    let Some(lock) = &self.lock else { continue };
                    let replaced = hand_over(&client.stream, client.process, lock, rules, signals);
                    client.forget(rules.nftables());
                    if let Some(process) = replaced? {
                        return Ok(Some(Request::Replaced(process)));
                    }
                }
                Step::Reloads if client.may_reload() => self.reloads.push(client.stream),
                _ => self.ignore(&client, rules.nftables()),
            }
        }
        Ok((!self.reloads.is_empty()).then_some(Request::Reload))
    }

    /// Tells those that have asked for a reload why it has failed, or that it has not.
    pub fn answer_reload(&mut self, outcome: Result<(), &str>) {
        let answer = outcome.map_or_else(str::as_bytes, |()| RELOADED);
        for mut stream in self.reloads.drain(..) {
            // Who does not read it, or has gone, does without.
            let _ = stream.write_all(answer);
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        if let Some(lock) = &self.lock {
            self.files
                .add(lock, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
            self.rests_until = None;
        }
        Ok(())
    }

    /// Listens on the lock again, or tries to get it.
    fn wake(&mut self) -> io::Result<()> {
        if self.lock.is_none() {
            self.lock = Lock::take(&self.name).ok().flatten();
            match self.lock {
                Some(_) => info!("this instance can be replaced now: its name is free"),
                None => self.rests_until = Some(Instant::now() + NAME_INTERVAL),
            }
        }
        self.listen()
    }

    fn accept(&mut self, nftables: &Nftables) -> io::Result<()> {
        let Some(lock) = &self.lock else {
            return Ok(());
        };
        let mut came = Vec::new();
        while self.rests_until.is_none() {
            if self.accepted.1.elapsed() >= SECOND {
                self.accepted = (0, Instant::now());
            }
            match lock.accept() {
                Ok(None) => break,
                Ok(Some((stream, address))) => {
                    self.accepted.0 += 1;
                    came.push(Client::new(stream, &address)?);
                }
                Err(error) => {
                    // Out of descriptors or memory: it is still there, so do not try again at once.
                    self.accepted.0 = MAX_PER_SECOND;
                    if self
                        .warned
                        .is_none_or(|at| at.elapsed() >= WARNING_INTERVAL)
                    {
                        warn!("cannot accept a connection to the lock: {error}");
                        self.warned = Some(Instant::now());
                    }
                }
            }
            if self.accepted.0 >= MAX_PER_SECOND {
                self.files.delete(lock)?;
                self.rests_until = Some(Instant::now() + SECOND);
            }
        }
        for client in came {
            if self.waiting.len() == MAX_WAITING {
                let oldest = self.waiting.remove(0);
                self.ignore(&oldest, nftables);
            }
            let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
            self.files.add(&client.stream, event)?;
            self.waiting.push(client);
        }
        Ok(())
    }

    /// A client that gets nothing; says so at most once a second, however many there are.
    fn ignore(&mut self, client: &Client, nftables: &Nftables) {
        client.forget(nftables);
        self.ignored += 1;
        if self.said.is_none_or(|at| at.elapsed() >= SECOND) {
            let count = mem::take(&mut self.ignored);
            debug!(
                "clients of the lock that have not proved that they may replace this instance: {count}"
            );
            self.said = Some(Instant::now());
        }
    }
}

/// A process that has connected, and has not got anything yet.
struct Client {
    stream: UnixStream,
    process: Holder,
    user: Option<u32>,
    /// Its nonce, if it is bound to a name with one.
    prover: Option<Nonce>,
    /// Ours, once it has asked.
    asked: Option<Nonce>,
    deadline: Instant,
}

/// What a client has done.
enum Step {
    /// What it should, or nothing yet.
    Waits,
    /// It says that its proof can be seen.
    Proved,
    /// It asks for a reload.
    Reloads,
    /// Anything else, or it has hung up.
    Wrong,
}

impl Client {
    fn new(stream: UnixStream, address: &SocketAddr) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let peer = Peer::of(&stream).ok();
        Ok(Client {
            process: peer.map_or(Holder::Unseen, |peer| peer.process),
            user: peer.and_then(|peer| peer.user),
            stream,
            prover: Nonce::of(address),
            asked: None,
            deadline: Instant::now() + HELLO_TIMEOUT,
        })
    }

    /// Reads what it has sent, if it has.
    fn step(&mut self) -> Step {
        let mut word = [0; HELLO.len()];
        let length = match (&self.stream).read(&mut word) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Waits,
            Err(_) => return Step::Wrong,
        };
        match (&word[..length], self.asked) {
            (HELLO, None) if self.prover.is_some() => match self.ask() {
                Ok(()) => Step::Waits,
                Err(_) => Step::Wrong,
            },
            ([PROVED], Some(_)) => Step::Proved,
            (RELOAD, None) => Step::Reloads,
            _ => Step::Wrong,
        }
    }

    /// Whether it may have the options read again: the user of the instance, and root, could send HUP too.
    fn may_reload(&self) -> bool {
        self.user == Some(0) || self.user == Some(geteuid().as_raw())
    }

    /// Asks for the proof.
    fn ask(&mut self) -> io::Result<()> {
        let nonce = Nonce::new()?;
        (&self.stream).write_all(nonce.to_string().as_bytes())?;
        self.asked = Some(nonce);
        self.deadline = Instant::now() + REPLY_TIMEOUT;
        Ok(())
    }

    fn table(&self) -> Option<String> {
        Some(proof::table(self.asked?, self.prover?))
    }

    /// Whether the proof is there. Not if that cannot be told.
    fn has_proved(&self, nftables: &Nftables) -> bool {
        let table = self.table();
        table.is_some_and(|table| matches!(nftables.table(&table), Ok(Some(_))))
    }

    /// Removes the proof, if the client has not, and no owner sees to it.
    fn forget(&self, nftables: &Nftables) {
        let Some(table) = self.table() else { return };
        let found = nftables.table(&table).ok().flatten();
        if found.is_some_and(|found| found.owner.is_none()) {
            let _ = nftables.remove(&table);
        }
    }
}
