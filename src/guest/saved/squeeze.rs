//! Images that are compressed: LZ4 frames (`lz4` reads them), whose own checksum tells damage.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;

use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::task::JoinHandle;

/// The first bytes of a frame (LZ4 Frame Format, "Magic Number").
const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();

/// A thread at work.
pub(super) struct Work(JoinHandle<io::Result<()>>);

impl Work {
    /// Waits for its end, which comes with that of the pipe.
    pub(super) async fn done(self) -> io::Result<()> {
        self.0.await.map_err(io::Error::other)?
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// A pipe; what is written to it comes compressed to the file.
pub(super) fn into(file: File) -> io::Result<(OwnedFd, Work)> {
    let (from, to) = pipe()?;
    let mut from = File::from(from);
    let work = tokio::task::spawn_blocking(move || {
        let info = FrameInfo::new()
            .block_size(BlockSize::Max1MB)
            .content_checksum(true);
        let mut frame = FrameEncoder::with_frame_info(info, BufWriter::new(file));
        io::copy(&mut from, &mut frame)?;
        frame.finish().map_err(io::Error::other)?.flush()
    });
    Ok((to, Work(work)))
}

/// A pipe from which the file comes as it was before it was compressed.
pub(super) fn out_of(file: File) -> io::Result<(OwnedFd, Work)> {
    let (from, to) = pipe()?;
    let mut to = File::from(to);
    let work = tokio::task::spawn_blocking(move || {
        let mut frame = FrameDecoder::new(file);
        io::copy(&mut frame, &mut to).map(drop)
    });
    Ok((from, Work(work)))
}

/// Whether the file is compressed.
pub(super) fn is_squeezed(mut file: &File) -> io::Result<bool> {
    let mut first = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut first)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(first == MAGIC)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    async fn pour(text: Vec<u8>, end: OwnedFd) {
        let write = move || File::from(end).write_all(&text);
        tokio::task::spawn_blocking(write).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_and_damage_is_told() {
        let text: Vec<u8> = (0..3_000_000_u32)
            .flat_map(|n| (n / 1000).to_le_bytes())
            .collect();
        let mut file = tempfile::tempfile().unwrap();
        let (end, work) = into(file.try_clone().unwrap()).unwrap();
        pour(text.clone(), end).await;
        work.done().await.unwrap();
        let length = file.metadata().unwrap().len();
        assert!(length < text.len() as u64 / 10, "{length}");
        file.seek(SeekFrom::Start(0)).unwrap();
        assert!(is_squeezed(&file).unwrap());
        let read = async |file: &File| {
            let (end, work) = out_of(file.try_clone().unwrap()).unwrap();
            let read = move || {
                let mut back = Vec::new();
                File::from(end).read_to_end(&mut back).map(|_| back)
            };
            let back = tokio::task::spawn_blocking(read).await.unwrap().unwrap();
            work.done().await.map(|()| back)
        };
        assert!(read(&file).await.unwrap() == text);

        file.seek(SeekFrom::Start(length / 2)).unwrap();
        file.write_all(b"damaged").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        read(&file).await.unwrap_err();
    }
}
