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
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

/// How many clients are accepted at once, how long the lock rests afterwards for each of them, so that they are 1,024
/// in a second, and how many of those may ask. The others wait in the kernel's queue, and for room in it.
const MAX_AT_ONCE: u32 = 64;
const REST: Duration = Duration::from_nanos(976_563);
const MAX_ASKING_PER_SECOND: usize = 256;

/// How many may take their time. Further ones take the places of those that have not asked, or of the oldest.
const MAX_WAITING: usize = 64;

/// How long a client may take to ask.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the lock rests when none can be accepted, and how often it is said that some came.
const SECOND: Duration = Duration::from_secs(1);

/// How often an instance without its name tries to get it.
const NAME_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is said that clients cannot be accepted.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);

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
    /// How many have asked since then.
    asked: (usize, Instant),
    /// When the lock is listened on again, or, if there is none, when the name is tried again.
    rests_until: Option<Instant>,
    warned: Option<Instant>,
    /// How many have proved nothing since it was last said.
    ignored: usize,
    said: Option<Instant>,
}

impl Clients {
    /// Without a lock, it tries to get it from time to time.
    pub fn new(name: &Name, lock: Option<Lock>) -> io::Result<Self> {
        let now = Instant::now();
        let files = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        if let Some(lock) = &lock {
            files.add(lock, event(EpollFlags::EPOLLIN))?;
        }
        Ok(Clients {
            rests_until: lock.is_none().then(|| now + NAME_INTERVAL),
            name: name.clone(),
            lock,
            files,
            waiting: Vec::new(),
            reloads: Vec::new(),
            asked: (0, now),
            warned: None,
            ignored: 0,
            said: None,
        })
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

    /// Serves the clients. Waits for none, unless it has proved that it may replace the instance. Gives the
    /// process that has done so. Each time, all that wait are looked at: as often as one comes, or sends something.
    pub fn serve(
        &mut self,
        rules: &mut Rules<'_>,
        signals: &Signals,
    ) -> Result<Option<Holder>, RulesError> {
        let now = Instant::now();
        if self.rests_until.is_some_and(|end| end <= now) {
            self.wake()?;
        }
        let nftables = rules.nftables();
        let mut clients = mem::take(&mut self.waiting);
        let before = clients.len();
        self.accept(&mut clients)?;
        for (index, mut client) in clients.into_iter().enumerate() {
            let wanted = match client.step(&mut self.asked) {
                Step::Waits if client.deadline > Instant::now() => {
                    self.wait_for(client, index < before, nftables);
                    continue;
                }
                Step::Proved(wanted) if client.has_proved(nftables) => wanted,
                _ => {
                    self.ignore(&client, nftables);
                    continue;
                }
            };
            let replaced = match (wanted, &self.lock) {
                (Wanted::Place, Some(lock)) => {
                    hand_over(&client.stream, client.process, lock, rules, signals)
                }
                _ => Ok(None),
            };
            client.forget(nftables);
            if let Some(process) = replaced? {
                return Ok(Some(process));
            }
            if let Wanted::Reload = wanted {
                // What it sends or closes until then wakes nobody up.
                let _ = self.files.delete(&client.stream);
                self.reloads.push(client.stream);
            }
        }
        self.make_room(nftables);
        Ok(None)
    }

    /// Waits for what a client sends; for one that has waited before it is woken already.
    fn wait_for(&mut self, client: Client, has_waited: bool, nftables: &Nftables) {
        // The kernel may have no room for more (fs.epoll.max_user_watches).
        let watch = || (self.files).add(&client.stream, event(EpollFlags::EPOLLIN));
        if has_waited || watch().is_ok() {
            self.waiting.push(client);
        } else {
            self.ignore(&client, nftables);
        }
    }

    /// Drops those for which there is no room.
    fn make_room(&mut self, nftables: &Nftables) {
        while self.waiting.len() > MAX_WAITING {
            let idle = |client: &Client| client.asked.is_none();
            let index = self.waiting.iter().position(idle).unwrap_or(0);
            let client = self.waiting.remove(index);
            self.ignore(&client, nftables);
        }
        let surplus = self.reloads.len().saturating_sub(MAX_WAITING);
        self.reloads.drain(..surplus);
    }

    /// Whether a client has asked for a reload: [`answer_reload`](Self::answer_reload) says what came of it.
    pub fn want_reload(&self) -> bool {
        !self.reloads.is_empty()
    }

    /// Tells those that have asked for a reload why it has failed, or that it has not.
    pub fn answer_reload(&mut self, outcome: Result<(), &str>) {
        let answer = outcome.map_or_else(str::as_bytes, |()| RELOADED);
        for mut stream in self.reloads.drain(..) {
            // Who does not read it, or has gone, does without.
            let _ = stream.write_all(answer);
        }
    }

    /// Listens on the lock again, or tries to get it.
    fn wake(&mut self) -> io::Result<()> {
        self.rests_until = None;
        if let Some(lock) = &self.lock {
            return Ok(self.files.modify(lock, &mut event(EpollFlags::EPOLLIN))?);
        }
        let listens = |lock: &Lock| self.files.add(lock, event(EpollFlags::EPOLLIN)).is_ok();
        self.lock = Lock::take(&self.name).ok().flatten().filter(listens);
        match self.lock {
            Some(_) => info!("this instance can be replaced now: its name is free"),
            None => self.rests_until = Some(Instant::now() + NAME_INTERVAL),
        }
        Ok(())
    }

    fn accept(&mut self, clients: &mut Vec<Client>) -> io::Result<()> {
        let Some(lock) = self.lock.as_ref().filter(|_| self.rests_until.is_none()) else {
            return Ok(());
        };
        let mut rest = Duration::ZERO;
        for number in 1..=MAX_AT_ONCE {
            match lock.accept() {
                Ok(None) => break,
                Ok(Some((stream, address))) => {
                    clients.push(Client::new(stream, &address)?);
                    rest = REST * number;
                }
                Err(error) => {
                    // Out of descriptors or memory: it is still there, so do not try again at once.
                    rest = SECOND;
                    let mut warned = self.warned.iter();
                    if warned.all(|at| at.elapsed() >= WARNING_INTERVAL) {
                        warn!("cannot accept a connection to the lock: {error}");
                        self.warned = Some(Instant::now());
                    }
                    break;
                }
            }
        }
        if !rest.is_zero() {
            self.files.modify(lock, &mut event(EpollFlags::empty()))?;
            self.rests_until = Some(Instant::now() + rest);
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
                "clients of the lock that have not proved that they may administer this network namespace: {count}"
            );
            self.said = Some(Instant::now());
        }
    }
}

impl AsFd for Clients {
    /// Readable when [`serve`](Clients::serve) has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.files.0.as_fd()
    }
}

fn event(flags: EpollFlags) -> EpollEvent {
    EpollEvent::new(flags, 0)
}

/// What a client asks for.
#[derive(Clone, Copy)]
enum Wanted {
    /// The place of this instance.
    Place,
    /// That the options are read again.
    Reload,
}

/// A process that has connected, and has not got anything yet.
struct Client {
    stream: UnixStream,
    process: Holder,
    /// Its nonce, if it is bound to a name with one.
    prover: Option<Nonce>,
    /// What it has asked for, and our nonce.
    asked: Option<(Wanted, Nonce)>,
    deadline: Instant,
}

/// What a client has done.
enum Step {
    /// What it should, or nothing yet.
    Waits,
    /// It says that its proof can be seen.
    Proved(Wanted),
    /// Anything else, or it has hung up.
    Wrong,
}

impl Client {
    fn new(stream: UnixStream, address: &SocketAddr) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let peer = Peer::of(&stream).ok();
        Ok(Client {
            process: peer.map_or(Holder::Unseen, |peer| peer.process),
            stream,
            prover: Nonce::of(address),
            asked: None,
            deadline: Instant::now() + HELLO_TIMEOUT,
        })
    }

    /// Reads what it has sent, if it has. `count` is how many have asked since when.
    fn step(&mut self, count: &mut (usize, Instant)) -> Step {
        let mut word = [0; HELLO.len()];
        let length = match (&self.stream).read(&mut word) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Waits,
            Err(_) => return Step::Wrong,
        };
        let wanted = match (&word[..length], self.asked) {
            (HELLO, None) => Wanted::Place,
            (RELOAD, None) => Wanted::Reload,
            ([PROVED], Some((wanted, _))) => return Step::Proved(wanted),
            _ => return Step::Wrong,
        };
        if count.1.elapsed() >= SECOND {
            *count = (0, Instant::now());
        }
        count.0 += 1;
        let may = self.prover.is_some() && count.0 <= MAX_ASKING_PER_SECOND;
        if may && self.ask(wanted).is_ok() {
            Step::Waits
        } else {
            Step::Wrong
        }
    }

    /// Asks for the proof.
    fn ask(&mut self, wanted: Wanted) -> io::Result<()> {
        let nonce = Nonce::new()?;
        (&self.stream).write_all(nonce.to_string().as_bytes())?;
        self.asked = Some((wanted, nonce));
        self.deadline = Instant::now() + REPLY_TIMEOUT;
        Ok(())
    }

    fn table(&self) -> Option<String> {
        Some(proof::table(self.asked?.1, self.prover?))
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
