//! Which role a stack belongs to: by the frame of that role in its call chain; without one by its thread, if that runs one role only.
//!
//! A thread that several roles share also runs what belongs to none of them: the loop, io_uring, sleep. That is `runner` here.

use rustc_demangle::try_demangle;

/// What is on a stack that belongs to no role.
pub const RUNNER: &str = "runner";

/// Roles, by their names, and a part of the type that runs each.
const ROLES: [(&str, &[&str]); 4] = [
    ("receive", &["roles::receive::Receive"]),
    ("sequence", &["roles::sequence::Sequence", "roles::sequence::when_free::WhenFree"]),
    ("ack", &["roles::ack::AckRole"]),
    ("export", &["roles::export::Export"]),
];
/// What the runner calls of a role.
const ENTRIES: [&str; 5] = ["start", "complete", "poll", "drain", "end"];

/// Equal samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Name of the thread.
    pub thread: String,
    /// The role, or [`RUNNER`].
    pub role: &'static str,
    /// From where the role is entered to the function that ran; of the runner, the whole stack.
    pub frames: Vec<String>,
    /// How many.
    pub samples: u64,
}

impl Stack {
    /// Reads a folded line: thread and functions with semicolons between them, a blank, a number. None if it is no such line.
    pub fn read(line: &str) -> Option<Stack> {
        let (stack, samples) = line.rsplit_once(' ')?;
        let mut parts = stack.split(';');
        let thread = parts.next()?.to_owned();
        let frames: Vec<String> = parts.map(named).collect();
        let samples = samples.parse().ok()?;
        // The innermost: a role does not call another.
        let entered = frames.iter().enumerate().rev().find_map(|(at, frame)| Some((at, role_entered(frame)?)));
        let (from, role) = entered.unwrap_or_else(|| (0, role_of_thread(&thread).unwrap_or(RUNNER)));
        Some(Stack { thread, role, frames: frames[from..].to_vec(), samples })
    }
}

/// A function's name as it is written in the source.
fn named(frame: &str) -> String {
    try_demangle(frame).map_or_else(|_| frame.to_owned(), |name| format!("{name:#}"))
}

/// The role that this function is the beginning of.
fn role_entered(frame: &str) -> Option<&'static str> {
    let (_, function) = frame.rsplit_once("::")?;
    if !frame.contains("Role") || !ENTRIES.contains(&function.trim_end_matches("_[i]")) {
        return None;
    }
    // `<Type as Trait>::function`: only the type says whose it is, and of that not what is in its brackets.
    let of_type = frame.trim_start_matches('<').split(" as ").next()?.split('<').next()?;
    let is_type = |types: &&[&str]| types.iter().any(|one| of_type.ends_with(one));
    ROLES.iter().find(|(_, types)| is_type(types)).map(|(role, _)| *role)
}

/// The role that a thread of this name runs, if it is one only. Folding turns blanks into underscores.
fn role_of_thread(thread: &str) -> Option<&'static str> {
    let word = thread.split([' ', '_']).next()?;
    ROLES.iter().map(|(role, _)| *role).find(|role| *role == word)
}

/// What is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Everything.
    All,
    /// One role.
    Role(String),
    /// One thread.
    Thread(String),
}

impl Wanted {
    /// As the command line says it.
    pub fn of(word: &str) -> Wanted {
        match word {
            "all" => Wanted::All,
            role if ROLES.iter().any(|(known, _)| *known == role) => Wanted::Role(role.to_owned()),
            thread => Wanted::Thread(thread.replace(' ', "_")),
        }
    }

    /// Whether a stack is part of it.
    pub fn has(&self, stack: &Stack) -> bool {
        match self {
            Wanted::All => true,
            Wanted::Role(role) => stack.role == role,
            Wanted::Thread(thread) => stack.thread.replace(' ', "_") == *thread,
        }
    }
}

/// As a folded line, with the role at its root.
pub fn in_words(stack: &Stack) -> String {
    format!("{};{} {}", stack.role, stack.frames.join(";"), stack.samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: &str = "<embarcadero::roles::ack::AckRole<M,I> as embarcadero::runtime::role::Role<I>>::poll";

    #[test]
    fn a_shared_thread_is_split_by_call_chains() {
        let stack = Stack::read(&format!("shared;start;pass;{POLL};crc 7")).unwrap();
        assert_eq!((stack.role, stack.samples, &*stack.frames.join(" ")), ("ack", 7, &*format!("{POLL} crc")));
        let stack = Stack::read("shared;start;pass;io_uring_enter 3").unwrap();
        assert_eq!((stack.role, stack.frames.len()), (RUNNER, 3));
    }

    #[test]
    fn what_a_role_has_in_its_brackets_is_not_the_role() {
        let frame = "<embarcadero::roles::export::Export<roles::receive::Receive> as embarcadero::runtime::role::Role<I>>::complete";
        assert_eq!(role_entered(frame), Some("export"));
        assert_eq!(role_entered("embarcadero::roles::receive::connection::poll"), None);
        assert_eq!(role_entered(&POLL.replace("::poll", "::name")), None);
    }

    #[test]
    fn a_thread_of_one_role_belongs_to_it_as_a_whole() {
        assert_eq!(Stack::read("receive_0/0;start;pass;io_uring_enter 3").unwrap().role, "receive");
        assert_eq!(Stack::read("sequence;pass 1").unwrap().role, "sequence");
        assert!(Wanted::of("brokers-0").has(&Stack::read("brokers-0;pass 1").unwrap()));
        assert!(!Wanted::of("receive").has(&Stack::read("brokers-0;pass 1").unwrap()));
    }

    #[test]
    fn symbols_of_either_scheme_are_named() {
        assert_eq!(named("_RNvCskwGfYPst2Cb_3foo16example_function"), "foo::example_function");
        assert_eq!(named("memcpy"), "memcpy");
    }
}
