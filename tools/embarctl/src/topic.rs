//! `embarctl topic`: create, list, describe, delete.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use embarcadero::TopicInfo;
use embarcadero::config::units::{format_bytes, format_duration};
use embarcadero::wire::Receipts;

use crate::Ended;
use crate::common::{ConnectArgs, PropertyArgs, admin, print};
use crate::error::CommandError;

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic; one that exists with the same properties is left as it is.
    Create(CreateArgs),
    /// Print every topic, one a line: name, order level, ack level, receipts, next order.
    List(ListArgs),
    /// Print what is known about a topic.
    Describe(NameArgs),
    /// Delete a topic with all its messages. Its publishers and subscribers are told.
    Delete(NameArgs),
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

/// `embarctl topic list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// `embarctl topic describe` and `delete`.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// The topic's name.
    name: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Does it.
pub fn run(command: &TopicCommand) -> Result<Ended, CommandError> {
    match command {
        TopicCommand::Create(CreateArgs { name, properties, connect }) => {
            let failed = CommandError::client(format!("create topic {name:?}"));
            let created =
                admin(connect).and_then(|mut all| all.create_topic(name, &properties.properties(), connect.timeout()));
            created.map_err(failed)?;
        }
        TopicCommand::List(ListArgs { connect }) => {
            let topics = admin(connect).and_then(|mut all| all.topics(connect.timeout()));
            print(&topics.map_err(CommandError::client("list topics"))?.iter().map(line).collect::<String>())?;
        }
        TopicCommand::Describe(NameArgs { name, connect }) => {
            let topic = admin(connect).and_then(|mut all| all.topic(name, connect.timeout()));
            print(&description(&topic.map_err(CommandError::client(format!("describe topic {name:?}")))?))?;
        }
        TopicCommand::Delete(NameArgs { name, connect }) => {
            let deleted = admin(connect).and_then(|mut all| all.delete_topic(name, connect.timeout()));
            deleted.map_err(CommandError::client(format!("delete topic {name:?}")))?;
        }
    }
    Ok(Ended::Done)
}

fn line(topic: &TopicInfo) -> String {
    let TopicInfo { name, properties, next_order, .. } = topic;
    let receipts = receipts(properties.receipts);
    format!("{name}\torder {}\tack {}\treceipts {receipts}\tnext {next_order}\n", properties.order, properties.ack)
}

fn receipts(receipts: Receipts) -> &'static str {
    match receipts {
        Receipts::Batch => "batch",
        Receipts::Message => "message",
    }
}

fn description(topic: &TopicInfo) -> String {
    let properties = &topic.properties;
    let bytes = match properties.retention_bytes {
        0 => "as much as fits".to_owned(),
        bytes => format_bytes(bytes),
    };
    let age = match properties.retention_age {
        Duration::ZERO => "as long as it fits".to_owned(),
        age => format_duration(age),
    };
    let mut text = String::new();
    let mut say = |what: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{what:<16}{value}");
    };
    say("name", &topic.name);
    say("order level", &properties.order);
    say("ack level", &properties.ack);
    say("receipts", &receipts(properties.receipts));
    say("replicas", &properties.replicas);
    say("retention bytes", &bytes);
    say("retention age", &age);
    say("id", &topic.id);
    say("generation", &topic.generation);
    say("created", &format_args!("{}.{:09} s UTC", topic.created_at / 1_000_000_000, topic.created_at % 1_000_000_000));
    say("next order", &topic.next_order);
    say("earliest order", &topic.earliest_order);
    say("kept bytes", &topic.kept_bytes);
    match topic.taken_bytes {
        0 => say("taken bytes", &"0: memory never took what its retention wanted"),
        bytes => say(
            "taken bytes",
            &format_args!("{bytes}: memory was short, and took them though its retention wanted them"),
        ),
    }
    text
}

#[cfg(test)]
mod tests {
    use embarcadero::Order;

    use super::*;
    use embarcadero::TopicProperties;

    #[test]
    fn what_is_known_is_printed() {
        let properties = TopicProperties { retention_bytes: 3 << 20, ..TopicProperties::default() };
        let topic = TopicInfo {
            name: "t".into(),
            properties,
            id: 3,
            generation: 8,
            created_at: 1_700_000_000_000_000_001,
            next_order: Order(10),
            earliest_order: Order(4),
            kept_bytes: 640,
            taken_bytes: 0,
        };
        assert_eq!(line(&topic), "t\torder 5\tack 1\treceipts batch\tnext 10\n");
        let text = description(&topic);
        for part in
            ["retention bytes 3MiB\n", "retention age   as long as it fits\n", "created         1700000000.000000001 s"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
