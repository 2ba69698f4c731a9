//! The network namespaces of this host, each once: those that have a name (ip-netns(8)), and those of
//! processes, such as the containers of a pod.

use crate::process;
use log::warn;
use nix::sched::{CloneFlags, setns};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where `ip netns` and the runtimes of containers give them names.
const NAMED: &str = "/run/netns";

/// What the names begin with that CNI's libraries make up: the pod's name says more.
const MADE_UP: &str = "cni-";

/// What the number begins with that the kernel knows a network namespace by (namespaces(7)).
pub const NUMBER: &str = "net:[";

/// A network namespace other than this process's own.
pub struct Namespace {
    id: Id,
    /// It can be opened there.
    path: PathBuf,
    /// Its name in [`NAMED`].
    name: Option<String>,
    /// The first of the processes in it.
    process: Option<u32>,
}

/// The device and the inode of a namespace, by which the kernel tells them apart (namespaces(7)).
type Id = (u64, u64);

fn id(path: &Path) -> io::Result<Id> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// A process's namespace of a type, by its name in namespaces(7). `thread-self` is the calling thread.
fn of(process: &str, kind: &str) -> PathBuf {
    Path::new("/proc").join(process).join("ns").join(kind)
}

fn own(kind: &str) -> PathBuf {
    of("thread-self", kind)
}

/// All namespaces but this thread's own. Fails if no other one may be entered.
pub fn others() -> io::Result<Vec<Namespace>> {
    let own = own("net");
    let own_id = id(&own)?;
    setns(File::open(&own)?, CloneFlags::CLONE_NEWNET)?;
    let mut found: HashMap<Id, Namespace> = HashMap::new();
    for (name, path) in entries(NAMED) {
        // A name that has lost its namespace is a file of another device.
        let id = id(&path).ok().filter(|(device, _)| *device == own_id.0);
        if let Some(id) = id {
            let namespace = found.entry(id).or_insert(Namespace::new(id, path));
            namespace.name.get_or_insert(name);
        }
    }
    let mut unseen = 0;
    for (process, _) in entries("/proc") {
        let Ok(number) = process.parse() else {
            continue;
        };
        let path = of(&process, "net");
        match id(&path) {
            Ok(id) => {
                let namespace = found.entry(id).or_insert(Namespace::new(id, path));
                let first = namespace.process.get_or_insert(number);
                *first = number.min(*first);
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => unseen += 1,
            // It has ended.
            Err(_) => {}
        }
    }
    if unseen > 0 {
        warn!(
            "the network namespaces of {unseen} processes cannot be seen: this takes CAP_SYS_PTRACE"
        );
    }
    found.remove(&own_id);
    Ok(found.into_values().collect())
}

/// The entries of a folder, with their paths; none if it cannot be read.
fn entries(folder: &str) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, entry.path())
    })
}

impl Namespace {
    fn new(id: Id, path: PathBuf) -> Self {
        Namespace {
            id,
            path,
            name: None,
            process: None,
        }
    }

    /// Does something in this namespace, and returns to the one before; fails if it cannot. `None` if the
    /// namespace is gone, or may not be entered.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> io::Result<Option<T>> {
        let own = File::open(own("net"))?;
        let Ok(file) = File::open(&self.path) else {
            return Ok(None);
        };
        // Another process may have got the number meanwhile.
        let opened = file.metadata()?;
        if (opened.dev(), opened.ino()) != self.id {
            return Ok(None);
        }
        if let Err(error) = setns(file, CloneFlags::CLONE_NEWNET) {
            warn!("network namespace {} is not shown: {error}", self.name());
            return Ok(None);
        }
        let done = work();
        setns(own, CloneFlags::CLONE_NEWNET)?;
        Ok(Some(done))
    }

    /// What people know it by: a name that was given to it, the host name of its container, which is the
    /// pod's name in Kubernetes, or a process.
    pub fn name(&self) -> String {
        let given = |name: &&String| !name.starts_with(MADE_UP);
        if let Some(name) = self.name.as_ref().filter(given) {
            return name.clone();
        }
        let made_up = || self.name.clone();
        self.hostname().or_else(made_up).unwrap_or_else(|| {
            let process = self.process.unwrap_or_default();
            let name = process::name(process).unwrap_or_default();
            format!("process {process} ({name})")
        })
    }

    /// The same with what the kernel knows it by, which tells it from others of that name.
    pub fn unique_name(&self) -> String {
        format!("{} ({NUMBER}{}])", self.name(), self.id.1)
    }

    /// The host name that its processes have, if it is not this process's.
    fn hostname(&self) -> Option<String> {
        let (own, theirs) = (own("uts"), of(&self.process?.to_string(), "uts"));
        if id(&own).ok()? == id(&theirs).ok()? {
            return None;
        }
        let own = File::open(own).ok()?;
        setns(File::open(theirs).ok()?, CloneFlags::CLONE_NEWUTS).ok()?;
        let name = fs::read_to_string("/proc/sys/kernel/hostname");
        setns(own, CloneFlags::CLONE_NEWUTS).ok()?;
        Some(name.ok()?.trim_end().to_owned())
    }
}
