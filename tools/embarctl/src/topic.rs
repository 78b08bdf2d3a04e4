//! `embarctl topic create`.

use clap::{Args, Subcommand};
use embarcadero::client::create_topic;

use crate::Ended;
use crate::common::{ConnectArgs, PropertyArgs};
use crate::error::CommandError;

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic; one that exists with the same properties is left as it is.
    Create(CreateArgs),
}

/// `embarctl topic create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The topic's name: 1 to 112 bytes, no control characters.
    name: String,
    #[command(flatten)]
    properties: PropertyArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Does it.
pub fn run(command: &TopicCommand) -> Result<Ended, CommandError> {
    match command {
        TopicCommand::Create(args) => {
            let (name, connect) = (&args.name, &args.connect);
            create_topic(&connect.brokers, name, &args.properties.properties(), connect.timeout())
                .map_err(CommandError::client(format!("create topic {name:?}")))?;
            Ok(Ended::Done)
        }
    }
}
