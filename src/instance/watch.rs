//! `NODEFWD_WATCH`: the file of options is read again when it changes, as inotify(7) tells.
//!
//! The directories are watched that its path leads through, also by symbolic links, and only for the names in
//! the path: so it is noticed when the file is written, when another takes its place, when a directory does, and
//! when the kubelet exchanges the link `..data` of a volume (pkg/volume/util/atomic_writer.go). The file is
//! watched too: if it is bound into a container by itself, or has another name, only it tells that it is written
//! by the other path.

use log::warn;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long after the first event of a change the file is read: a program may write it in several steps.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// How long after a reading it is not read again.
const PAUSE: Duration = Duration::from_secs(1);

/// As many symbolic links as the kernel follows (MAXSYMLINKS in include/linux/namei.h).
const MAX_LINKS: usize = 40;

/// What is noticed of a name in a directory.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_ONLYDIR);

/// What is noticed of the file itself.
const WRITTEN: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE;

/// A file whose changes are noticed, whether it is there or not.
pub struct FileWatch {
    path: PathBuf,
    inotify: Inotify,
    /// The directories that the path leads through, each with the name in it.
    names: Vec<(WatchDescriptor, OsString)>,
    /// The file, if it is there.
    file: Option<WatchDescriptor>,
    /// When the file is to be read again.
    due: Option<Instant>,
    last: Option<Instant>,
}

impl FileWatch {
    /// Notices changes from now on.
    pub fn open(path: &OsStr) -> io::Result<Self> {
        let mut watch = FileWatch {
            path: env::current_dir()?.join(path),
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
            names: Vec::new(),
            file: None,
            due: None,
            last: None,
        };
        watch.follow()?;
        Ok(watch)
    }

    /// Says that changes go unnoticed, and why.
    pub fn warn(error: &io::Error) {
        let raise = |sysctl| format!("; raise the limit with: sysctl -w fs.inotify.{sysctl}");
        let fix = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMFILE) => raise("max_user_instances=1024"),
            Some(Errno::ENOSPC) => raise("max_user_watches=65536"),
            _ => String::new(),
        };
        warn!(
            "changes of the file of NODEFWD_ENV_FILE go unnoticed until HUP: cannot watch its directories: {error}{fix}"
        );
    }

    /// When [`is_due`](Self::is_due) has something to say though nothing is readable.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Takes up the events that have come.
    pub fn read(&mut self) -> io::Result<()> {
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    if events.iter().any(|event| self.concerns(event)) {
                        self.schedule();
                    }
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn concerns(&self, event: &InotifyEvent) -> bool {
        let is_lost = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
        let is_written = self.file == Some(event.wd) && event.mask.contains(WRITTEN);
        let mut names = self.names.iter();
        is_lost
            || is_written
            || names.any(|(directory, entry)| {
                *directory == event.wd
                    && match &event.name {
                        Some(name) => name == entry,
                        // The directory itself is gone, or its file system.
                        None => event.mask.contains(AddWatchFlags::IN_IGNORED),
                    }
            })
    }

    fn schedule(&mut self) {
        let settled = Instant::now() + SETTLE_TIME;
        let earliest = self.last.map_or(settled, |last| settled.max(last + PAUSE));
        self.due.get_or_insert(earliest);
    }

    /// Whether the file is to be read again now. Further changes count from then on.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            (self.due, self.last) = (None, Some(now));
            // What cannot be watched any more is noticed at the next change of what can.
            if let Err(error) = self.follow() {
                Self::warn(&error);
            }
        }
        due
    }

    /// Watches the directories that the path leads through now, and the file. Each is watched before the name in
    /// it is looked up, so that no change goes unnoticed meanwhile. If the path ends early, its last directory
    /// tells when it goes on.
    fn follow(&mut self) -> io::Result<()> {
        let mut names: Vec<(WatchDescriptor, OsString)> = Vec::new();
        let mut directory = PathBuf::from("/");
        let mut rest = reversed(&self.path);
        let mut links = 0;
        let mut result = Ok(());
        while let Some(name) = rest.pop() {
            if name == ".." {
                // No link is left in it, so the kernel finds the same.
                directory.push(name);
                continue;
            }
            match self.inotify.add_watch(&directory, CHANGES) {
                Ok(watch) => names.push((watch, name.clone())),
                Err(Errno::ENOENT | Errno::ENOTDIR) => break,
                Err(errno) => result = Err(errno.into()),
            }
            let entry = directory.join(name);
            match entry.read_link() {
                Ok(target) if links < MAX_LINKS => {
                    links += 1;
                    if target.is_absolute() {
                        directory = PathBuf::from("/");
                    }
                    rest.extend(reversed(&target));
                }
                _ => directory = entry,
            }
        }
        let file = match self.watch_file(&directory) {
            Ok(file) => file,
            Err(error) => {
                result = result.and(Err(error));
                None
            }
        };
        for watch in self.names.iter().map(|(watch, _)| *watch).chain(self.file) {
            if names.iter().all(|(still, _)| *still != watch) && file != Some(watch) {
                // The kernel has done so if it is gone.
                let _ = self.inotify.rm_watch(watch);
            }
        }
        (self.names, self.file) = (names, file);
        result
    }

    /// Watches the file itself, if it is there and can be read. Not a directory in its place: what is noticed of
    /// the names in it would be forgotten.
    fn watch_file(&self, path: &Path) -> io::Result<Option<WatchDescriptor>> {
        if path.is_dir() {
            return Ok(None);
        }
        match self.inotify.add_watch(path, WRITTEN) {
            Ok(watch) => Ok(Some(watch)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The names in a path, the first one last.
fn reversed(path: &Path) -> Vec<OsString> {
    let names = path.as_os_str().as_bytes().rsplit(|byte| *byte == b'/');
    let names = names.filter(|name| !name.is_empty() && *name != b".");
    names.map(|name| OsStr::from_bytes(name).into()).collect()
}

impl AsFd for FileWatch {
    /// Readable when there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
