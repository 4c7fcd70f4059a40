//! A program on a terminal of its own, as a person has it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The program, what it has shown, and how much of that a test has seen.
pub(crate) struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
    seen: usize,
}

impl Terminal {
    /// Starts the command on a terminal of 40 lines and 160 columns.
    pub(crate) fn start(mut command: Command) -> Self {
        let (mut main, mut other) = (0, 0);
        let size = libc::winsize { ws_row: 40, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: both descriptors are written by the call and owned from here on.
        let (main, other) = unsafe {
            let done = libc::openpty(&mut main, &mut other, std::ptr::null_mut(), std::ptr::null(), &size);
            assert_eq!(done, 0, "no terminal");
            (File::from_raw_fd(main), OwnedFd::from_raw_fd(other))
        };
        let stdio = || Stdio::from(other.try_clone().unwrap());
        command.env("TERM", "xterm").stdin(stdio()).stdout(stdio()).stderr(stdio());
        // SAFETY: only calls that may follow a fork: the terminal becomes the one that ctrl-c of the child comes from.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                if libc::ioctl(0, libc::TIOCSCTTY, 0) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        let child = command.spawn().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, collected) = (main.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal whose program is gone gives an error.
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                collected.lock().unwrap().extend_from_slice(&bytes[..read]);
            }
        });
        Terminal { child, keys: main, shown, seen: 0 }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` is shown behind what was seen before; gives what stands before it.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let began = Instant::now();
        loop {
            let all = String::from_utf8_lossy(&self.shown.lock().unwrap()[self.seen..]).into_owned();
            if let Some(at) = all.find(text) {
                self.seen += at + text.len();
                return all[..at].to_string();
            }
            assert!(began.elapsed() < Duration::from_secs(60), "no {text:?} in {all:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end of the program.
    #[track_caller]
    pub(crate) fn ended(mut self) -> i32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(began.elapsed() < Duration::from_secs(60), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
