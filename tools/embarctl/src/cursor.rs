//! `embarctl cursor`: where the named consumers of a topic resume.

use clap::{Args, Subcommand};
use embarcadero::Order;

use crate::Ended;
use crate::common::{ConnectArgs, admin, print};
use crate::error::CommandError;

/// What to do with cursors.
#[derive(Debug, Subcommand)]
pub enum CursorCommand {
    /// Print a topic's cursors, one a line: name, order of the next message.
    List(TopicArgs),
    /// Set a cursor to an order; it is made if there is none.
    Set(SetArgs),
    /// Print where a cursor stands.
    Read(NameArgs),
    /// Delete a cursor.
    Delete(NameArgs),
}

/// `embarctl cursor list`.
#[derive(Debug, Args)]
pub struct TopicArgs {
    /// The topic's name.
    topic: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// `embarctl cursor read` and `delete`.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// The topic's name.
    topic: String,
    /// The cursor's name: 1 to 40 bytes, no control characters.
    cursor: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// `embarctl cursor set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Order of the next message its consumer wants.
    #[arg(long)]
    order: u64,
}

/// Does it.
pub fn run(command: &CursorCommand) -> Result<Ended, CommandError> {
    match command {
        CursorCommand::List(TopicArgs { topic, connect }) => {
            let cursors = admin(connect).and_then(|mut all| all.cursors(topic, connect.timeout()));
            let cursors = cursors.map_err(CommandError::client(format!("list the cursors of topic {topic:?}")))?;
            print(&cursors.iter().map(|(name, order)| format!("{name}\t{order}\n")).collect::<String>())?;
        }
        CursorCommand::Set(SetArgs { name: NameArgs { topic, cursor, connect }, order }) => {
            let set =
                admin(connect).and_then(|mut all| all.commit_cursor(topic, cursor, Order(*order), connect.timeout()));
            set.map_err(CommandError::client(format!("set cursor {cursor:?} of topic {topic:?}")))?;
        }
        CursorCommand::Read(NameArgs { topic, cursor, connect }) => {
            let read = admin(connect).and_then(|mut all| all.cursor(topic, cursor, connect.timeout()));
            match read.map_err(CommandError::client(format!("read cursor {cursor:?} of topic {topic:?}")))? {
                Some(order) => print(&format!("{order}\n"))?,
                None => return Err(CommandError::NoCursor { topic: topic.clone(), cursor: cursor.clone() }),
            }
        }
        CursorCommand::Delete(NameArgs { topic, cursor, connect }) => {
            let deleted = admin(connect).and_then(|mut all| all.delete_cursor(topic, cursor, connect.timeout()));
            deleted.map_err(CommandError::client(format!("delete cursor {cursor:?} of topic {topic:?}")))?;
        }
    }
    Ok(Ended::Done)
}
