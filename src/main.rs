//! `embarlet`: the broker process.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use embarcadero::config::{Config, LogFormat};
use embarcadero::embarlet::preflight::{self, lay_out};
use embarcadero::embarlet::{Embarlet, StartOptions, creation, open_pool, pool_bytes};
use embarcadero::fields::{Described, table};
use embarcadero::observe::errors;
use embarcadero::pool::Layout;
use embarcadero::pool::{layout, record, superblock};
use embarcadero::runtime::logging;
use embarcadero::wire::{frame, message};

const USAGE: &str = "\
embarlet: the broker of Embarcadero, a totally ordered publish/subscribe log over CXL memory

usage: embarlet [--config FILE] [--brokers 0,1,...] [--format [--overwrite-foreign]]
       embarlet [--config FILE] --format-only [--overwrite-foreign]
       embarlet [--config FILE] --check-config | --print-layout | --print-plan [--brokers 0,1,...]

  --config FILE     configuration; without it, the embedded one: four brokers on 127.0.0.1:7300-7303, pool in /dev/shm
  --brokers LIST    run only these of the brokers that the file lists, counted from 0 (all of one host); default: all
  --format          format the pool before starting: everything in it is lost. Only a pool of ours that nobody uses, a
                    file that is empty or not there, or a device whose beginning is blank, is formatted
  --format-only     format the pool so and exit
  --overwrite-foreign
                    with --format or --format-only: format whatever lies at pool.path, also what is not a pool
  --check-config    print the effective configuration and exit
  --print-layout    print the byte layout of the pool and of the wire, and exit
  --print-plan      print which role runs on which core, and why, and exit
  --log-format KIND text, or json: an object a line; default: as the configuration says (log_format)
  --version, --help

SIGINT or SIGTERM drains and stops; a second one stops at once. SIGHUP reads the configuration again: `log` takes effect at once, and
the log says what else changed and waits for the next start.

Exit status:
  0    stopped as told, or did what was asked
  1    failed while running: the log says which part, and why
  2    could not start, or the command line or configuration cannot be used; a pool made on the way is taken away again
  3    its pool was lost: unlinked, replaced, cut short, or its memory failed
  130  stopped at once by a second SIGINT; 143 by a second SIGTERM";

/// How long the end of the process waits for a log that nobody reads.
const LOG_FLUSH: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Arguments {
    config: Option<PathBuf>,
    brokers: Option<Vec<u32>>,
    format: bool,
    format_only: bool,
    overwrite_foreign: bool,
    check_config: bool,
    print_layout: bool,
    print_plan: bool,
    log_format: Option<LogFormat>,
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Arguments>, String> {
    let mut parsed = Arguments::default();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        // A path may be any bytes.
        let mut file = |name: &str| arguments.next().ok_or_else(|| format!("{name} needs a value"));
        let mut value = |name: &str| Ok::<_, String>(file(name)?.to_string_lossy().into_owned());
        match &*argument.to_string_lossy() {
            "--config" => parsed.config = Some(file("--config")?.into()),
            "--brokers" => parsed.brokers = Some(parse_brokers(&value("--brokers")?)?),
            "--format" => parsed.format = true,
            "--format-only" => parsed.format_only = true,
            "--overwrite-foreign" => parsed.overwrite_foreign = true,
            "--check-config" => parsed.check_config = true,
            "--print-layout" => parsed.print_layout = true,
            "--print-plan" => parsed.print_plan = true,
            "--log-format" => parsed.log_format = Some(parse_log_format(&value("--log-format")?)?),
            "--help" | "-h" => {
                print(&format!("{USAGE}\n"))?;
                return Ok(None);
            }
            "--version" | "-V" => {
                print(concat!("embarlet ", env!("CARGO_PKG_VERSION"), "\n"))?;
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

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("--log-format is text or json, found {text:?}")),
    }
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
    let arguments = match parse(std::env::args_os().skip(1)) {
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
    embarcadero::processor::limit(config.instructions);
    if let Err(error) =
        logging::start(config.log.into(), arguments.log_format.unwrap_or(config.log_format), errors::note)
    {
        log::warn!("the log has no thread of its own ({error}): a reader that stops reading it stops this process");
    }
    let code = match run(&config, &arguments) {
        Ok(code) => code,
        Err(error) => refuse(&*error),
    };
    logging::flush(LOG_FLUSH);
    code
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    logging::say(&format!("embarlet: {error}"));
    ExitCode::from(2)
}

/// On stdout. Who closes it has seen enough.
fn print(text: &str) -> Result<(), String> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

fn run(config: &Config, arguments: &Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if let Some(bytes) = config.pool.bytes {
        lay_out(config, bytes, arguments.config.as_deref())?;
    }
    if arguments.check_config {
        let notes = preflight::check(config, arguments.config.as_deref(), arguments.brokers.as_deref())?;
        print(&config.effective())?;
        notes.iter().for_each(|note| logging::say(&format!("embarlet: note: {note}")));
    }
    if arguments.print_layout {
        print_layout(&lay_out(config, pool_bytes(config)?, arguments.config.as_deref())?)?;
    }
    if arguments.print_plan {
        let all = || (0..config.brokers.len() as u32).collect();
        print(&preflight::describe_plan(config, &arguments.brokers.clone().unwrap_or_else(all))?)?;
    }
    if arguments.check_config || arguments.print_layout || arguments.print_plan {
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.format_only {
        let pool = open_pool(config, creation(config, true, arguments.overwrite_foreign))?;
        print(&format!("formatted {}: {} bytes\n", pool.path().display(), pool.layout().geometry.pool_bytes))?;
        return Ok(ExitCode::SUCCESS);
    }
    let all = || (0..config.brokers.len() as u32).collect();
    let brokers = arguments.brokers.clone().unwrap_or_else(all);
    let (format, overwrite_foreign) = (arguments.format, arguments.overwrite_foreign);
    let file = arguments.config.clone();
    let options = StartOptions { brokers, format, overwrite_foreign, on_signals: true, file };
    let embarlet = Embarlet::start(config, &options)?;
    let addresses: Vec<String> = embarlet.addresses().iter().map(ToString::to_string).collect();
    log::info!("ready: brokers {:?} listen on {}", embarlet.places(), addresses.join(", "));
    // The failure is in the log, with the thread it came from.
    Ok(embarlet.join().map_or_else(|error| ExitCode::from(error.exit_code()), |()| ExitCode::SUCCESS))
}

fn print_layout(layout: &Layout) -> Result<(), String> {
    let mut text = format!("pool, layout version {}\n\n{}\n", superblock::LAYOUT_VERSION, layout.table());
    fn part<T: Described>(text: &mut String, base: usize) {
        *text += &format!("{}\n\n{}\n", T::NAME, table::<T>(base));
    }
    part::<superblock::Superblock>(&mut text, 0);
    part::<layout::Geometry>(&mut text, 0);
    text += "records of one line; bytes 0 to 7 are the guard\n\n";
    part::<record::BatchSlot>(&mut text, 8);
    part::<record::IndexEntry>(&mut text, 8);
    part::<record::EpochLine>(&mut text, 8);
    part::<record::FloorLine>(&mut text, 8);
    part::<record::LaneProgress>(&mut text, 8);
    part::<record::LaneStatus>(&mut text, 8);
    part::<record::BrokerLine>(&mut text, 8);
    part::<record::AddressLine>(&mut text, 8);
    part::<record::PinLine>(&mut text, 8);
    part::<record::SegmentLine>(&mut text, 8);
    part::<record::ExtentLine>(&mut text, 8);
    part::<record::GrantLine>(&mut text, 8);
    part::<record::HoldingLine>(&mut text, 8);
    part::<record::TopicLine>(&mut text, 8);
    part::<record::NameLine>(&mut text, 8);
    part::<record::TopicProgress>(&mut text, 8);
    part::<record::SessionLine>(&mut text, 8);
    part::<record::CursorLine>(&mut text, 8);
    text += &format!("wire, protocol versions {} to {}\n\n", frame::VERSION_LOWEST, frame::VERSION);
    part::<frame::Prefix>(&mut text, 0);
    part::<frame::Hello>(&mut text, 0);
    part::<frame::Welcome>(&mut text, 0);
    part::<frame::Refused>(&mut text, 0);
    part::<frame::BatchHeader>(&mut text, 0);
    part::<message::MessageHeader>(&mut text, 0);
    part::<frame::Ack>(&mut text, 0);
    part::<frame::Deliver>(&mut text, 0);
    part::<frame::CaughtUp>(&mut text, 0);
    part::<frame::Goodbye>(&mut text, 0);
    part::<frame::Heartbeat>(&mut text, 0);
    part::<frame::Brokers>(&mut text, 0);
    part::<frame::LogRecord>(&mut text, 0);
    part::<frame::Request>(&mut text, 0);
    part::<frame::Reply>(&mut text, 0);
    part::<frame::TopicRecord>(&mut text, 0);
    print(&text)
}
