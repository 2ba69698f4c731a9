//! `--watch-file`: the file is read again when it changes, in whatever way it does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::flows::expect_nothing_lost;
use super::reload::both_ports;
use crate::fixture::{
    BACKEND_PORT, Namespace, Net, Nodefwd, Process, TempFile, expect_parts, nodefwd, wait_until,
};

/// A folder that is removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("nodefwd-{}-watch-{number}", process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(folder.join("etc")).expect("a folder");
        Folder(folder)
    }

    /// The folder of the file.
    fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }

    fn file(&self) -> PathBuf {
        self.etc().join("web.env")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What Write and its callees in pkg/volume/util/atomic_writer.go of Kubernetes do with a ConfigMap of one
/// file.
fn kubelet_writes(volume: &Path, text: &str) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let new = format!("..2026_11_30_12_00_00.{number}");
    let data = volume.join("..data");
    let old = fs::read_link(&data);
    fs::create_dir(volume.join(&new)).expect("a folder");
    fs::write(volume.join(&new).join("web.env"), text).expect("a file");
    let temporary = volume.join("..data_tmp");
    symlink(&new, &temporary).expect("a link");
    fs::rename(&temporary, &data).expect("an exchange");
    let visible = volume.join("web.env");
    if fs::symlink_metadata(&visible).is_err() {
        symlink("..data/web.env", &visible).expect("a link");
    }
    if let Ok(old) = old {
        fs::remove_dir_all(volume.join(old)).expect("the old folder");
    }
}

fn watching(file: &Path) -> Nodefwd {
    nodefwd(["--watch-file"]).env("NODEFWD_ENV_FILE", file)
}

fn count(forwarder: &Process, start: &str) -> usize {
    let stderr = forwarder.stderr();
    stderr
        .lines()
        .filter(|line| line.starts_with(start))
        .count()
}

const DONE: &str = "reloaded: ";
const FAILED: &str = "warning: not reloaded, going on with the rules as they are: ";

#[test]
fn nothing_is_lost_when_the_kubelet_changes_a_volume() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    let _server = backend.serve(BACKEND_PORT);
    let folder = Folder::new();
    kubelet_writes(&folder.etc(), &both_ports(backend));
    let forwarder = watching(&folder.file()).start(&net.node);
    let before = net.node.rules();
    let mut extra = false;
    expect_nothing_lost(&net, || {
        extra = !extra;
        let more = if extra {
            "NODEFWD_FORWARDS=tcp/5000-5999=10.9.9.9\n"
        } else {
            ""
        };
        kubelet_writes(&folder.etc(), &(both_ports(backend) + more));
        wait_until(
            "the new rules",
            || net.node.rules(),
            |rules| (*rules != before) == extra,
        );
    });
    assert_eq!(count(&forwarder, FAILED), 0, "{}", forwarder.stderr());
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(net.node.ruleset(), "");
}

/// Makes changes, each of which must bring a file that forwards to another address.
struct Watched {
    node: Namespace,
    folder: Folder,
    forwarder: Process,
    number: u8,
}

impl Watched {
    /// With the path that the program is given.
    fn start(folder: Folder, path: &Path) -> Self {
        let node = Namespace::forwarding("node");
        fs::write(folder.file(), text(1)).expect("a file");
        let forwarder = watching(path).start(&node);
        Watched {
            node,
            folder,
            forwarder,
            number: 1,
        }
    }

    #[track_caller]
    fn expect_reload(&mut self, change: impl FnOnce(&Folder, String)) {
        self.number += 1;
        change(&self.folder, text(self.number));
        let address = format!("10.9.9.{} ", self.number);
        let noticed = |rules: &String| rules.contains(&address);
        wait_until(&address, || self.node.rules(), noticed);
    }

    /// Waits for a reload that fails.
    #[track_caller]
    fn expect_failure(&self, change: impl FnOnce(&Folder)) {
        let before = count(&self.forwarder, FAILED);
        let rules = self.node.rules();
        change(&self.folder);
        let failures = || count(&self.forwarder, FAILED);
        wait_until("a failure", failures, |failures| *failures > before);
        let marked = self.node.rules();
        assert_eq!(
            marked.replace("\n\tchain reload-failed {\n\t}\n", ""),
            rules
        );
        expect_parts(&self.forwarder.stderr(), ["No such file or directory"]);
    }
}

fn text(number: u8) -> String {
    format!("NODEFWD_FORWARDS=tcp/80=10.9.9.{number}\n")
}

fn write(folder: &Folder, text: String) {
    fs::write(folder.file(), text).expect("written");
}

fn exchange(folder: &Folder, text: String) {
    let new = folder.etc().join(".web.env.new");
    fs::write(&new, text).expect("written");
    fs::rename(new, folder.file()).expect("renamed");
}

/// Puts another folder in the place of the file's.
fn exchange_folder(folder: &Folder, text: String) {
    let new = folder.0.join("new");
    fs::create_dir(&new).expect("a folder");
    fs::write(new.join("web.env"), text).expect("written");
    fs::rename(folder.etc(), folder.0.join("old")).expect("renamed");
    fs::rename(new, folder.etc()).expect("renamed");
    fs::remove_dir_all(folder.0.join("old")).expect("removed");
}

#[test]
fn every_way_to_change_a_file_is_noticed() {
    let folder = Folder::new();
    let file = folder.file();
    let mut watched = Watched::start(folder, &file);
    for _ in 0..2 {
        watched.expect_reload(write);
        watched.expect_reload(exchange);
        watched.expect_reload(exchange_folder);
        watched.expect_failure(|folder| fs::remove_file(folder.file()).expect("removed"));
        watched.expect_reload(write);
        watched.expect_failure(|folder| fs::remove_dir_all(folder.etc()).expect("removed"));
        watched.expect_reload(|folder, text| {
            fs::create_dir(folder.etc()).expect("a folder");
            write(folder, text);
        });
    }
    watched.forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Absolute and relative links, of the file and of folders above it.
#[test]
fn every_link_on_the_way_to_the_file_is_watched() {
    let folder = Folder::new();
    let root = folder.0.clone();
    symlink("etc", root.join("relative")).expect("a link");
    symlink(root.join("relative/../relative"), root.join("absolute")).expect("a link");
    fs::create_dir(root.join("links")).expect("a folder");
    let link = root.join("links/file");
    symlink("../absolute/web.env", &link).expect("a link");
    let mut watched = Watched::start(folder, &link);
    let exchange_link = |target: &str, link: &str| {
        let new = root.join("link.new");
        symlink(target, &new).expect("a link");
        fs::rename(new, root.join(link)).expect("renamed");
    };
    watched.expect_reload(write);
    watched.expect_reload(exchange_folder);
    watched.expect_reload(|_, text| {
        fs::create_dir(root.join("other")).expect("a folder");
        fs::write(root.join("other/web.env"), text).expect("written");
        exchange_link("other", "relative");
    });
    watched.expect_reload(|_, text| {
        fs::write(root.join("plain"), text).expect("written");
        exchange_link("../plain", "links/file");
    });
    watched.expect_reload(|_, text| fs::write(root.join("plain"), text).expect("written"));
    watched.forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// How many directories and files a process watches.
fn watches(process: &Process) -> usize {
    let folder = format!("/proc/{}/fdinfo", process.id());
    let files = fs::read_dir(folder).expect("a process").flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts.map(|text| text.matches("inotify wd:").count()).sum()
}

/// Each would wake it up for other files, and there is a limit of them.
#[test]
fn folders_that_the_path_has_left_are_watched_no_longer() {
    let folder = Folder::new();
    let root = folder.0.clone();
    symlink("etc", root.join("now")).expect("a link");
    let mut watched = Watched::start(folder, &root.join("now/web.env"));
    let before = watches(&watched.forwarder);
    assert!(before > 3, "{before}");
    for name in ["one", "two", "three"] {
        watched.expect_reload(|_, text| {
            fs::create_dir(root.join(name)).expect("a folder");
            fs::write(root.join(name).join("web.env"), text).expect("written");
            symlink(name, root.join("new")).expect("a link");
            fs::rename(root.join("new"), root.join("now")).expect("renamed");
        });
        assert_eq!(watches(&watched.forwarder), before);
    }
    watched.forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// A file by itself that is bound into a container, or has a second name: the directory of the path that is
/// written to is not the one that is watched.
#[test]
fn a_change_by_another_path_to_the_same_file_is_noticed() {
    let folder = Folder::new();
    let (root, file) = (folder.0.clone(), folder.file());
    let mut watched = Watched::start(folder, &file);
    let other = root.join("other.env");
    for _ in 0..2 {
        fs::hard_link(&file, &other).expect("a link");
        let by_other = |_: &Folder, text| fs::write(&other, text).expect("written");
        watched.expect_reload(by_other);
        watched.expect_reload(by_other);
        // Then it is another file.
        watched.expect_reload(exchange);
        fs::remove_file(&other).expect("removed");
    }
    watched.forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// Of another file, so many that the kernel has no room for the change that counts.
#[test]
fn a_change_among_more_than_the_kernel_can_keep_is_noticed() {
    let folder = Folder::new();
    let file = folder.file();
    let mut watched = Watched::start(folder, &file);
    watched.expect_reload(write);
    watched.forwarder.signal(Signal::SIGSTOP);
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
    let limit: usize = limit.trim().parse().expect("a number");
    let [one, other] = ["1", "2"].map(|name| watched.folder.etc().join(name));
    fs::write(&one, "").expect("written");
    // Two events each.
    for _ in 0..limit / 4 + 1 {
        fs::rename(&one, &other).expect("renamed");
        fs::rename(&other, &one).expect("renamed");
    }
    watched.number += 1;
    write(&watched.folder, text(watched.number));
    watched.forwarder.signal(Signal::SIGCONT);
    let address = format!("10.9.9.{} ", watched.number);
    wait_until(
        &address,
        || watched.node.rules(),
        |rules| rules.contains(&address),
    );
    watched.forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn a_burst_of_changes_is_few_reloads_and_the_last_file_counts() {
    let folder = Folder::new();
    let file = folder.file();
    let mut watched = Watched::start(folder, &file);
    let reloads =
        |watched: &Watched| count(&watched.forwarder, DONE) + count(&watched.forwarder, FAILED);
    let began = Instant::now();
    let rules = watched.node.rules();
    while began.elapsed() < Duration::from_secs(4) {
        exchange(&watched.folder, "NODEFWD_FORWARDS=tcp/80=10.8.8.8\n".into());
    }
    // Not only when it is over.
    assert_ne!(watched.node.rules(), rules);
    watched.expect_reload(exchange);
    // One at the start, one at the end, and one each second between.
    let most = 3 + began.elapsed().as_secs() as usize;
    assert!(reloads(&watched) <= most, "{}", watched.forwarder.stderr());
    // Other files of the folder are none of its business.
    watched.expect_reload(write);
    thread::sleep(Duration::from_secs(2));
    let before = reloads(&watched);
    fs::write(watched.folder.etc().join("other.env"), "").expect("written");
    thread::sleep(Duration::from_secs(2));
    assert_eq!(reloads(&watched), before);
    watched.forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

#[test]
fn it_takes_a_file_and_a_reload_cannot_switch_it() {
    let call = nodefwd(["--watch-file", "tcp/80=10.2.0.11"]).without_net_admin();
    let outcome = call.finish_here().expect_exit(2);
    expect_parts(
        &outcome.stderr,
        ["NODEFWD_WATCH is set, but NODEFWD_ENV_FILE (--env-file) is not"],
    );
    let node = Namespace::forwarding("node");
    let file = TempFile::new(text(1) + "NODEFWD_WATCH=true\n");
    let call = nodefwd([""; 0]).env("NODEFWD_ENV_FILE", file.path());
    let forwarder = call.start(&node);
    file.write(text(2));
    let said = forwarder.wait_for_line(FAILED);
    expect_parts(
        &said,
        ["NODEFWD_WATCH (--watch-file) cannot change while the instance runs"],
    );
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
}

/// It forwards all the same, and HUP still works.
#[test]
fn a_file_that_cannot_be_watched_is_a_warning_with_the_reason() {
    for (fault, reason) in [
        (
            "inotify_init1:error=EMFILE",
            "fs.inotify.max_user_instances",
        ),
        (
            "inotify_add_watch:error=ENOSPC",
            "fs.inotify.max_user_watches",
        ),
        ("inotify_add_watch:error=EACCES", "Permission denied"),
    ] {
        let node = Namespace::forwarding("node");
        let file = TempFile::new(text(1));
        let options = ["--output=/dev/null", &format!("--inject={fault}")];
        let mut forwarder = watching(file.path()).traced(&options).start(&node);
        let said = forwarder.wait_for_line("warning: changes of the file ");
        expect_parts(&said, ["go unnoticed until HUP", reason]);
        file.write(text(2));
        forwarder.signal(Signal::SIGHUP);
        forwarder.wait_for_line(DONE);
        expect_parts(&node.rules(), ["10.9.9.2 "]);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
    }
}
