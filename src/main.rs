//! `embarlet`: the broker process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use embarcadero::config::Config;
use embarcadero::embarlet::{Embarlet, StartOptions, creation, geometry, open_pool, pool_bytes};
use embarcadero::fields::{Described, table};
use embarcadero::pool::Layout;
use embarcadero::pool::{layout, record, superblock};
use embarcadero::wire::{frame, message};

const USAGE: &str = "\
embarlet: the broker of Embarcadero, a totally ordered publish/subscribe log over CXL memory

usage: embarlet [--config FILE] [--brokers 0,1,...] [--format [--overwrite-foreign]]
       embarlet [--config FILE] --format-only [--overwrite-foreign]
       embarlet [--config FILE] --check-config | --print-layout

  --config FILE     configuration; without it, the embedded one: four brokers on 127.0.0.1:7300-7303, pool in /dev/shm
  --brokers LIST    run only these of the configured brokers (all of one host); default: all
  --format          format the pool before starting: everything in it is lost. Only a pool of ours that nobody uses, a
                    file that is empty or not there, or a device whose beginning is blank, is formatted
  --format-only     format the pool so and exit
  --overwrite-foreign
                    with --format or --format-only: format whatever lies at pool.path, also what is not a pool
  --check-config    print the effective configuration and exit
  --print-layout    print the byte layout of the pool and of the wire, and exit
  --version, --help

SIGINT or SIGTERM drains and stops; a second one stops at once. Exit status: 0 stopped as told, 1 failed while running,
2 could not start.";

#[derive(Default)]
struct Arguments {
    config: Option<PathBuf>,
    brokers: Option<Vec<u32>>,
    format: bool,
    format_only: bool,
    overwrite_foreign: bool,
    check_config: bool,
    print_layout: bool,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut parsed = Arguments::default();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value = |name: &str| arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match argument.as_str() {
            "--config" => parsed.config = Some(value("--config")?.into()),
            "--brokers" => parsed.brokers = Some(parse_brokers(&value("--brokers")?)?),
            "--format" => parsed.format = true,
            "--format-only" => parsed.format_only = true,
            "--overwrite-foreign" => parsed.overwrite_foreign = true,
            "--check-config" => parsed.check_config = true,
            "--print-layout" => parsed.print_layout = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(None);
            }
            "--version" | "-V" => {
                println!("embarlet {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    if parsed.overwrite_foreign && !parsed.format && !parsed.format_only {
        return Err("--overwrite-foreign goes with --format or --format-only".into());
    }
    Ok(Some(parsed))
}

fn parse_brokers(text: &str) -> Result<Vec<u32>, String> {
    let mut brokers = Vec::new();
    for part in text.split(',') {
        let broker = part.trim().parse().map_err(|_| format!("--brokers takes numbers like 0,1, found {part:?}"))?;
        if brokers.contains(&broker) {
            return Err(format!("--brokers names broker {broker} twice"));
        }
        brokers.push(broker);
    }
    Ok(brokers)
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("embarlet: {wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let loaded = arguments.config.as_deref().map_or_else(|| Ok(Config::embedded()), Config::load);
    let config = match loaded {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    env_logger::Builder::new().filter_level(config.log.into()).format_timestamp_micros().init();
    match run(&config, &arguments) {
        Ok(code) => code,
        Err(error) => refuse(&*error),
    }
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("embarlet: {error}");
    ExitCode::from(2)
}

fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if let Some(bytes) = config.pool.bytes {
        lay_out(config, bytes, arguments.config.as_deref())?;
    }
    if arguments.check_config || arguments.print_layout {
        let layout = lay_out(config, pool_bytes(config)?, arguments.config.as_deref())?;
        if arguments.check_config {
            print!("{}", config.effective());
        }
        if arguments.print_layout {
            print_layout(&layout);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.format_only {
        let pool = open_pool(config, creation(config, true, arguments.overwrite_foreign))?;
        println!("formatted {}: {} bytes", pool.path().display(), pool.layout().geometry.pool_bytes);
        return Ok(ExitCode::SUCCESS);
    }
    let all = || config.brokers.iter().map(|broker| broker.id).collect();
    let brokers = arguments.brokers.clone().unwrap_or_else(all);
    let (format, overwrite_foreign) = (arguments.format, arguments.overwrite_foreign);
    let options = StartOptions { brokers, format, overwrite_foreign, on_signals: true };
    let embarlet = Embarlet::start(config, &options)?;
    let addresses: Vec<String> = embarlet.addresses().iter().map(ToString::to_string).collect();
    log::info!("ready: brokers {:?} listen on {}", options.brokers, addresses.join(", "));
    // The failure is in the log, with the thread it came from.
    Ok(if embarlet.join().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sizes that do not fit together are the file's fault, not the pool's: they are told with file and line.
fn lay_out(config: &Config, pool_bytes: u64, file: Option<&Path>) -> Result<Layout, String> {
    Layout::new(geometry(config, pool_bytes))
        .map_err(|error| format!("{}: {error}", Config::place_of(file, "pool.bytes")))
}

fn print_layout(layout: &Layout) {
    println!("pool, layout version {}\n\n{}", superblock::LAYOUT_VERSION, layout.table());
    fn part<T: Described>(base: usize) {
        println!("{}\n\n{}", T::NAME, table::<T>(base));
    }
    part::<superblock::Superblock>(0);
    part::<layout::Geometry>(0);
    println!("records of one line; bytes 0 to 7 are the guard\n");
    part::<record::BatchSlot>(8);
    part::<record::IndexEntry>(8);
    part::<record::EpochLine>(8);
    part::<record::FloorLine>(8);
    part::<record::LaneProgress>(8);
    part::<record::LaneStatus>(8);
    part::<record::BrokerLine>(8);
    part::<record::PinLine>(8);
    part::<record::SegmentLine>(8);
    part::<record::ExtentLine>(8);
    part::<record::TopicLine>(8);
    part::<record::NameLine>(8);
    part::<record::TopicProgress>(8);
    part::<record::SessionLine>(8);
    part::<record::CursorLine>(8);
    println!("wire, protocol version {}\n", frame::VERSION);
    part::<frame::Prefix>(0);
    part::<frame::Hello>(0);
    part::<frame::Welcome>(0);
    part::<frame::Refused>(0);
    part::<frame::BatchHeader>(0);
    part::<message::MessageHeader>(0);
    part::<frame::Ack>(0);
    part::<frame::Deliver>(0);
    part::<frame::CaughtUp>(0);
    part::<frame::Goodbye>(0);
    part::<frame::Request>(0);
    part::<frame::Reply>(0);
    part::<frame::TopicRecord>(0);
}
