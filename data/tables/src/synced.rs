//! A local folder as an object store whose writes are on the disk when they return.
//!
//! `LocalFileSystem` never calls fsync. A file that a commit refers to must be durable before the
//! commit, and the commit before anybody acts on it, so here
//!
//! - a put writes a staging file, syncs it, and only then links it to its name: what can be seen is
//!   whole on the disk, even if the writer is killed or its future dropped halfway;
//! - the folder is synced after the link, and every new folder's parent after its creation. When that fails the
//!   object can be seen all the same; who finds it and relies on it syncs the folder first (`Storage::sync`);
//! - listings after an offset, which the log is read by, are in order;
//! - a finished multipart upload, a copy and a rename are synced afterwards. Those are data files,
//!   which nobody reads before a commit refers to them.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use parking_lot::Mutex;

use crate::store::Folders;

const STORE: &str = "SyncedLocal";

/// Folders remembered as synced; beyond that the memory starts anew.
const FOLDERS_MAX: usize = 16_384;

/// A local folder as an object store whose writes are durable when they return.
#[derive(Debug, Clone)]
pub struct SyncedLocal {
    inner: Arc<LocalFileSystem>,
    disk: Arc<Disk>,
}

impl SyncedLocal {
    /// Opens a folder, which is created if it does not exist.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(root: &FilePath) -> Result<Self> {
        let failed = |source| generic(root, source);
        fs::create_dir_all(root).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        // The root's own entry, and those of the folders that were made on the way to it.
        for folder in root.ancestors().skip(1).take(3) {
            sync_folder(folder).map_err(failed)?;
        }
        let inner = LocalFileSystem::new_with_prefix(&root)?;
        Ok(Self { inner: Arc::new(inner), disk: Arc::new(Disk { root, folders: Mutex::new(HashSet::new()) }) })
    }

    async fn on_disk<T: Send + 'static>(&self, work: impl FnOnce(&Disk) -> Result<T> + Send + 'static) -> Result<T> {
        let disk = Arc::clone(&self.disk);
        blocking(move || work(&disk)).await
    }

    async fn sync(&self, location: &Path) -> Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        self.on_disk(move |disk| disk.sync(&path).map_err(|source| generic(&path, source))).await
    }

    /// Syncs a folder, if it is there. Blocks.
    pub(crate) fn sync_folder_now(&self, folder: &Path) -> Result<()> {
        let path = self.inner.path_to_filesystem(folder)?;
        match sync_folder(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(generic(&path, source)),
            _ => Ok(()),
        }
    }

    async fn prepare(&self, location: &Path) -> Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        self.on_disk(move |disk| disk.ensure_parent(&path).map_err(|source| generic(&path, source))).await
    }
}

impl fmt::Display for SyncedLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}({})", self.disk.root.display())
    }
}

#[async_trait]
impl Folders for SyncedLocal {
    async fn sync_folder(&self, folder: &Path) -> Result<()> {
        let (store, folder) = (self.clone(), folder.clone());
        blocking(move || store.sync_folder_now(&folder)).await
    }
}

#[async_trait]
impl ObjectStore for SyncedLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.inner.put_opts(location, payload, opts).await,
        };
        let path = self.inner.path_to_filesystem(location)?;
        self.on_disk(move |disk| disk.put(&path, &payload, create)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.prepare(location).await?;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(SyncedUpload { inner, store: self.clone(), location: location.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        // The library takes the log's entries in the order they are listed, as S3 lists them; a folder has none.
        let entries = self.inner.list_with_offset(prefix, offset);
        let sorted = async move {
            let mut found: Vec<ObjectMeta> = entries.try_collect().await?;
            found.sort_unstable_by(|one, other| one.location.cmp(&other.location));
            Ok::<_, Error>(stream::iter(found.into_iter().map(Ok)))
        };
        stream::once(sorted).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.prepare(to).await?;
        self.inner.copy_opts(from, to, options).await?;
        self.sync(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.prepare(to).await?;
        self.inner.rename_opts(from, to, options).await?;
        self.sync(to).await
    }
}

#[derive(Debug)]
struct SyncedUpload {
    inner: Box<dyn MultipartUpload>,
    store: SyncedLocal,
    location: Path,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        self.store.sync(&self.location).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// The blocking side.
#[derive(Debug)]
struct Disk {
    root: PathBuf,
    folders: Mutex<HashSet<PathBuf>>,
}

impl Disk {
    fn put(&self, dest: &FilePath, payload: &PutPayload, create: bool) -> Result<()> {
        let failed = |source| generic(dest, source);
        self.ensure_parent(dest).map_err(failed)?;
        let staged = match stage(dest, payload) {
            Err(source) if source.kind() == ErrorKind::NotFound => {
                // Somebody removed a folder that is remembered as made.
                self.folders.lock().clear();
                self.ensure_parent(dest).and_then(|()| stage(dest, payload))
            }
            other => other,
        }
        .map_err(failed)?;
        let named = if create { fs::hard_link(&staged, dest) } else { fs::rename(&staged, dest) };
        if create || named.is_err() {
            // Its content has its name now, or is of no use: a leftover does no harm but the space.
            fs::remove_file(&staged).ok();
        }
        named.map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => {
                Error::AlreadyExists { path: dest.display().to_string(), source: Box::new(source) }
            }
            _ => generic(dest, source),
        })?;
        sync_folder(parent(dest)).map_err(failed)
    }

    fn sync(&self, path: &FilePath) -> io::Result<()> {
        File::open(path)?.sync_all()?;
        sync_folder(parent(path))
    }

    fn ensure_parent(&self, path: &FilePath) -> io::Result<()> {
        self.ensure(parent(path))
    }

    /// Makes a folder below the root and those above it, each durable.
    fn ensure(&self, folder: &FilePath) -> io::Result<()> {
        if folder == self.root || !folder.starts_with(&self.root) || self.folders.lock().contains(folder) {
            return Ok(());
        }
        let above = parent(folder);
        self.ensure(above)?;
        match fs::create_dir(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        sync_folder(above)?;
        let mut folders = self.folders.lock();
        if folders.len() >= FOLDERS_MAX {
            folders.clear();
        }
        folders.insert(folder.to_path_buf());
        Ok(())
    }
}

/// Writes a payload to a new file beside `dest`, synced. Its name ends in `#` and digits, which
/// `LocalFileSystem` does not list.
fn stage(dest: &FilePath, payload: &PutPayload) -> io::Result<PathBuf> {
    let (mut file, staged) = new_staged(dest)?;
    let written = payload.iter().try_for_each(|chunk| file.write_all(chunk)).and_then(|()| file.sync_all());
    if let Err(error) = written {
        fs::remove_file(&staged).ok();
        return Err(error);
    }
    Ok(staged)
}

fn new_staged(dest: &FilePath) -> io::Result<(File, PathBuf)> {
    let mut attempt = 1_u64;
    loop {
        let mut name = dest.as_os_str().to_owned();
        name.push(format!("#{attempt}"));
        let staged = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Ok(file) => return Ok((file, staged)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

fn parent(path: &FilePath) -> &FilePath {
    path.parent().unwrap_or(path)
}

#[cfg(unix)]
fn sync_folder(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be synced through a file handle.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the same signature everywhere")]
fn sync_folder(_folder: &FilePath) -> io::Result<()> {
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(source) => Err(Error::JoinError { source }),
    }
}

fn generic(path: &FilePath, source: io::Error) -> Error {
    let reason = format!("{}: {source}", path.display());
    Error::Generic { store: STORE, source: Box::new(io::Error::new(source.kind(), reason)) }
}
