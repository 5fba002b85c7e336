//! A read-only file system (FUSE) that shows a directory of the host and notes what is read of it. Knows nothing of
//! what becomes of the notes.
//!
//! What the kernel has once asked for it may keep for as long as the mount lives: the first time is the one that is
//! noted. A file's content counts as read with the first page that anything (`read`, `mmap`, `execve`) takes of it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, ReplyXattr, Request, Session, SessionACL,
};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::fault::{Result, Tried};
use crate::reads::{Aspect, Kind, Look, Recorder, Stamp, View};

/// For how long the kernel may keep what it was told.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// How many threads answer. More only wait for each other.
const THREADS: usize = 4;

/// Shows what a recorder is for. The file system is mounted nowhere: the descriptor is handed to a sandbox
/// ([`super::Mount::Served`]). It lives until nothing has it mounted or open, or this process ends.
///
/// # Errors
/// When file systems of this kind can't be mounted; the text says why.
pub fn serve(recorder: Arc<Recorder>) -> std::result::Result<OwnedFd, String> {
    mount(recorder).map_err(|fault| fault.to_string())
}

fn mount(recorder: Arc<Recorder>) -> Result<OwnedFd> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .tried(|| "open /dev/fuse".to_owned())?;
    let what = || "mount a file system of type fuse".to_owned();
    let fs = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).tried(what)?;
    let fd = device.as_raw_fd().to_string();
    // Overlayfs asks as whoever mounted the overlay, a script as whom it likes: what may be read is decided there.
    for (key, value) in
        [("source", "mkosi"), ("fd", fd.as_str()), ("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")]
    {
        rustix::mount::fsconfig_set_string(&fs, key, value).tried(what)?;
    }
    rustix::mount::fsconfig_set_flag(&fs, "allow_other").tried(what)?;
    rustix::mount::fsconfig_create(&fs).tried(what)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let mount = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).tried(what)?;
    drop(fs);
    let mut config = Config::default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    config.n_threads = Some(processors.min(THREADS));
    let server = Server { recorder, nodes: Mutex::new(Nodes::new()) };
    // The kernel's first request waits there since the mount was made.
    let session = Session::from_fd(server, device, SessionACL::All, config)
        .tried(|| "answer a file system of type fuse".to_owned())?;
    // Its threads end with the file system.
    session.spawn().tried(|| "start the threads of a file system".to_owned())?;
    Ok(mount)
}

/// A directory's listing as it was first seen.
type Listing = Arc<io::Result<Vec<(Vec<u8>, Kind)>>>;

/// The kernel's numbers for paths. They stay for the life of the file system.
struct Nodes {
    paths: Vec<Arc<[u8]>>,
    numbers: HashMap<Arc<[u8]>, u64>,
    listings: HashMap<u64, Listing>,
}

impl Nodes {
    /// Number 1 is the root.
    fn new() -> Self {
        let root: Arc<[u8]> = Arc::from(&b""[..]);
        Self { paths: vec![Arc::clone(&root)], numbers: HashMap::from([(root, 1)]), listings: HashMap::new() }
    }

    fn number(&mut self, path: &[u8]) -> u64 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let path: Arc<[u8]> = Arc::from(path);
        self.paths.push(Arc::clone(&path));
        let number = self.paths.len() as u64;
        self.numbers.insert(path, number);
        number
    }

    fn path(&self, number: INodeNo) -> Option<Arc<[u8]>> {
        self.paths.get(usize::try_from(number.0).ok()?.checked_sub(1)?).cloned()
    }
}

struct Server {
    recorder: Arc<Recorder>,
    nodes: Mutex<Nodes>,
}

impl Server {
    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> &View {
        self.recorder.view()
    }

    fn path(&self, number: INodeNo) -> std::result::Result<Arc<[u8]>, Errno> {
        self.nodes().path(number).ok_or(Errno::ESTALE)
    }

    /// Looks at a path and notes what is shown.
    fn look(&self, path: &[u8]) -> Look {
        let look = self.view().look(path);
        self.recorder.note(path, Aspect::Name, look.kind, look.digest());
        look
    }

    fn listing(&self, number: INodeNo) -> std::result::Result<Listing, Errno> {
        let path = self.path(number)?;
        if let Some(known) = self.nodes().listings.get(&number.0) {
            return Ok(Arc::clone(known));
        }
        let listing: Listing = Arc::new(self.view().list(&path));
        self.recorder.note(&path, Aspect::List, Kind::Directory, View::list_digest(&listing));
        Ok(Arc::clone(self.nodes().listings.entry(number.0).or_insert(listing)))
    }

    fn read(&self, number: INodeNo, offset: u64, size: u32) -> std::result::Result<Vec<u8>, Errno> {
        let path = self.path(number)?;
        let file = self.view().file(&path).map_err(Errno::from)?;
        let stamp = Stamp::of(&file.metadata().map_err(Errno::from)?);
        self.recorder.note_content(&path, stamp);
        // No more than there is: a last call that finds the end is spared.
        let left = usize::try_from(stamp.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; left.min(size as usize)];
        let mut filled = 0;
        while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match file.read_at(room, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Errno::from(error)),
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }

    /// File capabilities; of no other attribute is anything shown.
    fn capability(&self, number: INodeNo) -> std::result::Result<Vec<u8>, Errno> {
        let path = self.path(number)?;
        let value = self.view().capability(&path);
        self.recorder.note(&path, Aspect::Capability, Kind::File, View::capability_digest(&value));
        Ok(value)
    }
}

fn attributes(number: u64, look: &Look) -> FileAttr {
    let time = look.stamp.map_or(UNIX_EPOCH, |stamp| time(stamp.mtime));
    let kind = match look.kind {
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Special => match look.mode & libc::S_IFMT {
            libc::S_IFCHR => FileType::CharDevice,
            libc::S_IFBLK => FileType::BlockDevice,
            _ => FileType::NamedPipe,
        },
        Kind::File | Kind::Absent | Kind::Closed => FileType::RegularFile,
    };
    FileAttr {
        ino: INodeNo(number),
        size: look.size,
        blocks: look.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: u16::try_from(look.mode & 0o7777).unwrap_or(0),
        // Neither how many names a file has nor whose it is enters a key.
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: u32::try_from(look.device).unwrap_or(0),
        blksize: 4096,
        flags: 0,
    }
}

fn time((seconds, nanos): (i64, i64)) -> SystemTime {
    let nanos = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    at.and_then(|at| at.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

fn send_xattr(value: &[u8], size: u32, reply: ReplyXattr) {
    match (u32::try_from(value.len()).unwrap_or(u32::MAX), size) {
        (length, 0) => reply.size(length),
        (length, room) if length > room => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each is taken where the kernel has it.
        for wish in [InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_CACHE_SYMLINKS, InitFlags::FUSE_ASYNC_READ] {
            let _ = config.add_capabilities(wish);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let above = match self.path(parent) {
            Ok(above) => above,
            Err(error) => return reply.error(error),
        };
        let mut path = above.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let look = self.look(&path);
        match look.kind {
            // Number 0 stands for an absence that may be kept.
            Kind::Absent => reply.entry(&FOR_EVER, &attributes(0, &look), Generation(0)),
            Kind::Closed => reply.error(Errno::from_i32(look.error)),
            _ => {
                let number = self.nodes().number(&path);
                reply.entry(&FOR_EVER, &attributes(number, &look), Generation(0));
            }
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let look = match self.path(number) {
            Ok(path) => self.look(&path),
            Err(error) => return reply.error(error),
        };
        match look.kind {
            Kind::Absent => reply.error(Errno::ENOENT),
            Kind::Closed => reply.error(Errno::from_i32(look.error)),
            _ => reply.attr(&FOR_EVER, &attributes(number.0, &look)),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.path(number).map(|path| self.look(&path)) {
            Ok(look) if look.kind == Kind::Symlink => reply.data(&look.target),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(error) => reply.error(error),
        }
    }

    /// The kernel then opens files without asking again: what counts is what is read.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read(number, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listing = match self.listing(number) {
            Ok(listing) => listing,
            Err(error) => return reply.error(error),
        };
        let names = match listing.as_ref() {
            Ok(names) => names,
            Err(error) => return reply.error(Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))),
        };
        let own = [(b".".to_vec(), Kind::Directory), (b"..".to_vec(), Kind::Directory)];
        let all = own.iter().chain(names);
        for (at, (name, kind)) in all.enumerate().skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            let kind = match kind {
                Kind::Directory => FileType::Directory,
                Kind::Symlink => FileType::Symlink,
                Kind::Special => FileType::NamedPipe,
                _ => FileType::RegularFile,
            };
            // Any number does that is not 0 and fits 32 bits: the true one comes with a look at the name.
            if reply.add(INodeNo(u64::from(u32::MAX)), at as u64 + 1, kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if name != "security.capability" {
            return reply.error(Errno::NO_XATTR);
        }
        match self.capability(number) {
            Ok(value) if value.is_empty() => reply.error(Errno::NO_XATTR),
            Ok(value) => send_xattr(&value, size, reply),
            Err(error) => reply.error(error),
        }
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        match self.capability(number) {
            Ok(value) if value.is_empty() => send_xattr(b"", size, reply),
            Ok(_) => send_xattr(b"security.capability\0", size, reply),
            Err(error) => reply.error(error),
        }
    }
}
