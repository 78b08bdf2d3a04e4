//! A process, from its start to its end.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

use crate::wait_for;

/// What a broker logs when it listens.
pub const LISTENS: &str = "ready: brokers";

/// How a process that is not needed any more is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGKILL.
    Killed,
    /// SIGTERM, and SIGKILL only if it has not ended after this time.
    Asked(Duration),
}

/// Why a process did not do what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It ended.
    Ended(ExitStatus),
    /// The time was over.
    Late(Duration),
}

impl std::fmt::Display for Silence {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Silence::Ended(status) => write!(out, "ended: {status}"),
            Silence::Late(time) => write!(out, "said nothing for {time:?}"),
        }
    }
}

/// A process of our own. It ends with this value.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// In a mutex so that threads may share what else it knows.
    lines: Mutex<Receiver<String>>,
    log: PathBuf,
    end: End,
}

impl Process {
    /// Starts it without waiting for anything. Its standard error is its log, a new file; its standard input ends with it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, mut command: Command, log: &Path, end: End) -> io::Result<Process> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(log)?);
        let mut child = command.spawn()?;
        let (sender, lines) = channel();
        let output = child.stdout.take().expect("it is piped");
        // Ends with the child's output, or when nobody listens any more.
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Process { name: name.to_owned(), child, lines: Mutex::new(lines), log: log.to_owned(), end })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of what it has logged.
    pub fn last_lines(&self, most: usize) -> Vec<String> {
        let log = self.log();
        let skipped = log.lines().count().saturating_sub(most);
        log.lines().skip(skipped).map(str::to_owned).collect()
    }

    /// The next line it prints.
    ///
    /// # Errors
    /// If there is none.
    pub fn line(&mut self, longest: Duration) -> Result<String, Silence> {
        let line = self.lines.get_mut().expect("nobody panics with it").recv_timeout(longest);
        line.map_err(|_| self.check_alive().err().unwrap_or(Silence::Late(longest)))
    }

    /// Waits until its log has these words.
    ///
    /// # Errors
    /// If it does not come to that.
    pub fn wait_for_log(&mut self, words: &str, longest: Duration) -> Result<(), Silence> {
        let found = wait_for(longest, || match self.log().contains(words) {
            true => Some(Ok(())),
            false => self.check_alive().err().map(Err),
        });
        found.unwrap_or(Err(Silence::Late(longest)))
    }

    /// An error if it has ended.
    ///
    /// # Errors
    /// How it ended.
    pub fn check_alive(&mut self) -> Result<(), Silence> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(Silence::Ended(status)),
            _ => Ok(()),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Whether all of its threads stand still: after SIGSTOP it may do anything until then.
    pub fn is_stopped(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten();
        tasks.flatten().all(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // The state follows the name, which is in parentheses and may hold any character.
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// How it ended, if it does by itself within this time.
    pub fn ended(&mut self, longest: Duration) -> Option<ExitStatus> {
        wait_for(longest, || self.child.try_wait().expect("our own child"))
    }

    /// SIGKILL. Gives the moment before. What the kernel has to take back may take a while longer.
    ///
    /// # Errors
    /// If it is not there any more.
    pub fn kill(&mut self) -> io::Result<Instant> {
        let before = Instant::now();
        self.child.kill().map(|()| before)
    }

    /// Waits until it is gone, and the kernel has taken everything back.
    pub fn wait(&mut self) {
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let End::Asked(longest) = self.end {
            // A stopped process takes note of SIGTERM when it goes on. One that is gone needs neither.
            let _ = self.signal(Signal::TERM).and_then(|()| self.signal(Signal::CONT));
            if self.ended(longest).is_some() {
                return;
            }
            eprintln!("{} did not end within {longest:?} of SIGTERM: killed", self.name);
        }
        let _ = self.kill();
        self.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn shell(script: &str, end: End) -> (Process, PathBuf) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let log = std::env::temp_dir().join(format!("launch-{}-{}.log", std::process::id(), script.len()));
        (Process::start("a shell", command, &log, end).unwrap(), log)
    }

    #[test]
    fn what_it_prints_and_logs_is_seen_and_how_it_ended() {
        let (mut process, log) = shell("echo out; echo one >&2; echo two >&2; exit 3", End::Killed);
        assert_eq!(process.line(LONG).as_deref(), Ok("out"));
        assert_eq!(process.wait_for_log("two", LONG), Ok(()));
        assert_eq!(process.last_lines(1), ["two"]);
        assert!(matches!(process.wait_for_log("three", LONG), Err(Silence::Ended(status)) if status.code() == Some(3)));
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn it_stands_still_goes_on_and_ends_with_its_value() {
        let (mut process, log) = shell("trap 'exit 0' TERM; echo in; while :; do sleep 0.01; done", End::Asked(LONG));
        process.line(LONG).unwrap();
        process.signal(Signal::STOP).unwrap();
        assert_eq!(wait_for(LONG, || process.is_stopped().then_some(())), Some(()));
        let id = process.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
        fs::remove_file(log).unwrap();
    }
}
