//! The checks on machines that are made up: one as it should be, with a device and cores of its own; and each thing that can be wrong with
//! it, one by one. A laptop. And one of which nothing is known.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use embarcadero::config::Config;
use embarcadero::net::ring::{RingError, RingMode};
use embarcadero::pool::PoolError;
use embarcadero::pool::region::Pool;
use embarcadero::pool::superblock::SuperblockError;
use embarcadero::runtime::cpu::UsableCores;
use serde_json::Value;

use super::asked::{Asked, Place, PoolSaid};
use super::needs::Needs;
use super::report::{Check, Report, State};
use super::tree::{Tree, list, size};
use super::{Seen, examine};

/// Four roles, each on its own core, on a device.
const BARE: &str = "pool: { path: /dev/dax0.0, create: never }\nthreads: { mode: dedicated, idle: spin }\n\
    ack: { send: zero_copy }\nexport: { send: zero_copy }\nbrokers: [{ address: \"10.0.0.1:7300\" }]\n";

struct Machine {
    root: PathBuf,
    config: String,
    usable: UsableCores,
    asked: Asked,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Machine {
    /// One of which nothing is known but what was asked.
    fn empty() -> Machine {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("embarctl-doctor-{}-{number}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let mode = RingMode { deferred: true, registered: true, zero_copy: true, zero_copy_lists: true };
        let said = PoolSaid { bytes: 64 << 30, agrees: Ok(()), writable: Ok(()), brokers: 0 };
        let asked = Asked {
            rings: Ok(Some(mode)),
            place: Place::Device,
            free_bytes: Some(8 << 30),
            pool_bytes: Ok(2 << 30),
            pool: Ok(said),
            ports: vec![("10.0.0.1:7300".parse().unwrap(), Ok(()))],
            write_back: "clwb + clflushopt",
            checksums: "128 B: three streams (16 GB/s)".into(),
            writes: "past the caches by 64 bytes (16 GB/s)".into(),
        };
        Machine { root, config: BARE.into(), usable: UsableCores::all_of((0..8).collect()), asked }
    }

    /// Two nodes of four cores, and memory behind CXL that is node 2; cores 1 to 7 are the brokers'.
    fn good() -> Machine {
        let machine = Machine::empty();
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
            Max processes             100000               100000               processes\n\
            Max open files            1024                 1048576              files\n\
            Max locked memory         8388608              unlimited            bytes\n";
        let memory = "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nHugePages_Total: 0\nHugePages_Free: 0\nHugepagesize: 2048 kB\n";
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /dev rw - devtmpfs udev rw\n3 2 0:6 / /dev/shm rw - tmpfs tmpfs rw\n\
            4 1 0:7 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        for (name, text) in [
            ("proc/sys/kernel/osrelease", "6.12.9-amd64\n"),
            ("proc/sys/kernel/io_uring_disabled", "0\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu sse4_2 pclmulqdq clflushopt clwb movdir64b\n"),
            ("proc/self/status", "Seccomp:\t0\nCapEff:\t0000000000000000\n"),
            ("proc/self/limits", limits),
            ("proc/self/cgroup", "0::/system.slice/embarlet.service\n"),
            ("proc/self/mountinfo", mounts),
            ("proc/meminfo", memory),
            ("proc/cmdline", "quiet intel_idle.max_cstate=1\n"),
            ("proc/1/comm", "systemd\n"),
            ("proc/irq/24/smp_affinity_list", "0\n"),
            ("proc/irq/24/nvme0q0/node", "0\n"),
            // Nobody handles it.
            ("proc/irq/9/smp_affinity_list", "0-7\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
            ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm\n"),
            ("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size advise [never] deny force\n"),
            ("sys/fs/cgroup/system.slice/embarlet.service/pids.max", "max\n"),
            ("sys/devices/system/cpu/online", "0-7\n"),
            ("sys/devices/system/cpu/isolated", "1-7\n"),
            ("sys/devices/system/cpu/nohz_full", "1-7\n"),
            ("sys/devices/system/cpu/cpuidle/current_driver", "intel_idle\n"),
            ("sys/devices/system/node/node0/cpulist", "0-4\n"),
            ("sys/devices/system/node/node0/distance", "10 21 24\n"),
            ("sys/devices/system/node/node1/cpulist", "5-7\n"),
            ("sys/devices/system/node/node1/distance", "21 10 34\n"),
            ("sys/devices/system/node/node2/cpulist", "\n"),
            ("sys/devices/system/node/node2/distance", "24 34 10\n"),
            ("sys/bus/dax/devices/dax0.0/align", "2097152\n"),
            ("sys/bus/dax/devices/dax0.0/size", "68719476736\n"),
            ("sys/bus/dax/devices/dax0.0/target_node", "2\n"),
            ("sys/bus/dax/devices/dax0.0/numa_node", "0\n"),
        ] {
            machine.put(name, text);
        }
        machine.drive("device_dax");
        (0..8).for_each(|core| machine.put_core(core));
        machine
    }

    fn put_core(&self, core: usize) {
        let folder = format!("sys/devices/system/cpu/cpu{core}");
        self.put(&format!("{folder}/node{}/cpulist", usize::from(core > 4)), "");
        self.put(&format!("{folder}/topology/thread_siblings_list"), &format!("{core}\n"));
        self.put(&format!("{folder}/cpufreq/scaling_governor"), "performance\n");
        for (state, name, latency_us, disable) in [(0, "POLL", 0, 0), (1, "C1", 2, 0), (2, "C6", 170, 1)] {
            self.put(&format!("{folder}/cpuidle/state{state}/name"), name);
            self.put(&format!("{folder}/cpuidle/state{state}/latency"), &format!("{latency_us}\n"));
            self.put(&format!("{folder}/cpuidle/state{state}/disable"), &format!("{disable}\n"));
        }
    }

    /// A laptop, where the embedded configuration makes its pool.
    fn laptop() -> Machine {
        let mut machine = Machine::good();
        machine.config = embarcadero::config::EMBEDDED.into();
        machine.usable = UsableCores::all_of(vec![0, 1, 2, 3]);
        machine.asked.place = Place::Nothing;
        machine.asked.pool = Err(PoolError::Missing { path: "/dev/shm/embarcadero".into() });
        machine.put("sys/devices/system/cpu/isolated", "\n");
        machine.put("sys/devices/system/cpu/nohz_full", "(null)\n");
        machine
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.root.join(name)).unwrap();
        assert!(text.contains(from), "{name}: {text}");
        self.put(name, &text.replace(from, to));
    }

    /// The driver that has the device.
    fn drive(&self, driver: &str) {
        let link = self.root.join("sys/bus/dax/devices/dax0.0/driver");
        let _ = fs::remove_file(&link);
        symlink(format!("../../../dax/drivers/{driver}"), link).unwrap();
    }

    fn report(&self) -> Report {
        let config = Config::parse(&self.config, "a test").unwrap();
        let needs = Needs::on(config, "a test".into(), Ok(self.usable.clone()));
        examine(&Seen { tree: &Tree::new(&self.root), needs: &needs, asked: &self.asked })
    }

    fn check(&self, name: &str) -> Check {
        let report = self.report();
        let found = report.checks().find(|(_, check)| check.name == name).map(|(_, check)| check.clone());
        found.unwrap_or_else(|| panic!("there is no check {name}"))
    }
}

fn not_ok(report: &Report) -> Vec<Check> {
    report.checks().map(|(_, check)| check.clone()).filter(|check| check.state != State::Ok).collect()
}

/// What is wrong, and how it is told.
type Wrong = (&'static str, fn(&mut Machine), State, &'static str);

/// Changes the machine, and looks for the words in all that is said; whatever is not ok says what to do, or is only not known.
fn hold(make: fn() -> Machine, cases: &[Wrong]) {
    for (name, change, state, words) in cases {
        let mut machine = make();
        change(&mut machine);
        let check = machine.check(name);
        let text = format!("{}\n{}\n{}", check.found, check.needed, check.remedy.join("\n"));
        assert!(check.state == *state && text.contains(words), "{name}, expected {state:?} and {words:?}: {check:?}");
        let longest = check.remedy.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(longest <= 85, "a remedy is not broken, and is {longest} characters long: {check:?}");
        assert!(*state > State::Warn || !check.remedy.is_empty() || !check.needed.is_empty(), "{check:?}");
    }
}

#[test]
fn nothing_is_wrong_with_a_good_machine() {
    let report = Machine::good().report();
    assert_eq!(not_ok(&report), [], "{}", report.text());
    let names: BTreeSet<&str> = report.checks().map(|(_, check)| check.name).collect();
    assert_eq!(names.len(), report.checks().count(), "no two have one name");
    assert!(names.len() > 25 && report.failed() == 0);
    let laptop = Machine::laptop().report();
    assert_eq!(laptop.failed(), 0, "{}", laptop.text());
    assert!(not_ok(&laptop).iter().all(|check| check.state == State::Note), "{}", laptop.text());
}

#[test]
fn what_is_wrong_with_the_kernel_is_told() {
    const CLOCK: &str = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    const RELEASE: &str = "proc/sys/kernel/osrelease";
    hold(
        Machine::good,
        &[
            ("kernel version", |it| it.put(RELEASE, "5.15.0-91-generic\n"), State::Fail, "5.19 or later"),
            ("kernel version", |it| it.put(RELEASE, "5.19.0\n"), State::Note, "zero-copy"),
            (
                "io_uring setting",
                |it| it.put("proc/sys/kernel/io_uring_disabled", "2\n"),
                State::Fail,
                "sysctl -w kernel.io_uring_disabled=0",
            ),
            ("io_uring setting", |it| it.put("proc/sys/kernel/io_uring_disabled", "1\n"), State::Ok, "to this user"),
            (
                "io_uring",
                |it| {
                    it.put("proc/self/status", "Seccomp:\t2\n");
                    it.asked.rings = Err(RingError::Setup(io::Error::from_raw_os_error(1)));
                },
                State::Fail,
                "(a seccomp filter is in effect)",
            ),
            ("clock source", |it| it.put(CLOCK, "hpet\n"), State::Warn, "echo tsc > /sys/devices"),
            ("clock source", |it| it.put(CLOCK, "kvm-clock\n"), State::Ok, "kvm-clock"),
            ("virtualization", |it| it.edit("proc/cpuinfo", "fpu", "fpu hypervisor"), State::Note, "virtual machine"),
            ("time of day", |it| it.config += "geometry: { hosts: 2 }\n", State::Note, "each of the 2 hosts"),
            (
                "time of day",
                |it| {
                    it.config += "geometry: { hosts: 2 }\n";
                    it.put("proc/7/comm", "chronyd\n");
                },
                State::Ok,
                "chronyd runs",
            ),
        ],
    );
    assert!(Machine::good().report().checks().all(|(_, check)| check.name != "time of day"), "one host has one clock");
}

#[test]
fn limits_that_are_too_low_are_told() {
    const LIMITS: &str = "proc/self/limits";
    const SERVICE: &str = "sys/fs/cgroup/system.slice/embarlet.service";
    hold(
        Machine::good,
        &[
            ("locked memory", |it| it.edit(LIMITS, "unlimited", "8388608"), State::Warn, "LimitMEMLOCK=infinity"),
            (
                "locked memory",
                |it| {
                    it.edit(LIMITS, "unlimited", "65536");
                    it.asked.rings = Err(RingError::LockedMemory { needed: 544_768, limit: 65536 });
                },
                State::Fail,
                "64 KiB at most",
            ),
            (
                "locked memory",
                |it| {
                    it.edit(LIMITS, "unlimited", "8388608");
                    it.config = it.config.replace("zero_copy", "copy");
                },
                State::Ok,
                "for rings; nothing is sent without a copy",
            ),
            (
                "locked memory",
                |it| {
                    it.edit(LIMITS, "unlimited", "8388608");
                    it.edit("proc/self/status", "CapEff:\t0000000000000000", "CapEff:\t0000000000004000");
                },
                State::Ok,
                "CAP_IPC_LOCK",
            ),
            ("descriptors", |it| it.edit(LIMITS, "1048576", "1024"), State::Warn, "2120 for 2064 connections"),
            (
                "descriptors",
                |it| {
                    it.edit(LIMITS, "1048576", "1024");
                    it.config += "receive: { connections_max: 2000 }\n";
                },
                State::Fail,
                "LimitNOFILE=4096",
            ),
            (
                "threads",
                |it| {
                    it.put(&format!("{SERVICE}/pids.max"), "40\n");
                    it.put(&format!("{SERVICE}/pids.current"), "30\n");
                },
                State::Fail,
                "10 free of 40 (pids.max of /sys/fs/cgroup/system.slice/embarlet.service)",
            ),
            ("threads", |it| it.edit(LIMITS, "100000 ", "5 "), State::Fail, "5 of this user"),
            // Of a group above the one it is in.
            (
                "cgroup quota",
                |it| {
                    it.put("sys/fs/cgroup/system.slice/cpu.max", "250000 100000\n");
                    it.put("sys/fs/cgroup/system.slice/cpu.stat", "nr_periods 9\nnr_throttled 7\n");
                },
                State::Warn,
                "2.5 cores (/sys/fs/cgroup/system.slice), held back 7 times",
            ),
        ],
    );
    let small = |it: &mut Machine| {
        it.put("sys/fs/cgroup/system.slice/memory.max", "1073741824\n");
        it.put("sys/fs/cgroup/system.slice/memory.current", "104857600\n");
    };
    hold(Machine::laptop, &[("cgroup memory", small, State::Fail, "924 MiB free of 1 GiB")]);
    hold(Machine::good, &[("cgroup memory", small, State::Ok, "the pool takes none of it")]);
}

#[test]
fn memory_that_is_short_is_told() {
    const SHMEM: &str = "sys/kernel/mm/transparent_hugepage/shmem_enabled";
    hold(
        Machine::laptop,
        &[
            (
                "space for the pool",
                |it| it.asked.free_bytes = Some(1 << 30),
                State::Fail,
                "1 GiB free in /dev/shm (tmpfs)",
            ),
            ("space for the pool", |it| it.asked.free_bytes = None, State::Fail, "there is no folder"),
            ("available memory", |it| it.edit("proc/meminfo", "8388608", "1048576"), State::Fail, "bytes: 512MiB"),
            ("huge pages of tmpfs", |it| it.put(SHMEM, "always never [deny] force\n"), State::Warn, "echo advise"),
            (
                "huge pages of tmpfs",
                |it| it.put("proc/sys/kernel/osrelease", "6.0.1\n"),
                State::Note,
                "echo within_size",
            ),
            (
                "reserved huge pages",
                |it| it.edit("proc/meminfo", "HugePages_Free: 0", "HugePages_Free: 512"),
                State::Note,
                "1 GiB of memory that the pool does not use",
            ),
            (
                "reserved huge pages",
                |it| it.edit("proc/self/mountinfo", "tmpfs tmpfs", "hugetlbfs none"),
                State::Fail,
                "vm.nr_hugepages=1024",
            ),
        ],
    );
}

#[test]
fn who_else_is_on_cores_that_spin_is_told() {
    const CPUS: &str = "sys/devices/system/cpu";
    hold(
        Machine::good,
        &[
            ("cores for the plan", |it| it.usable = UsableCores::all_of(vec![0, 1]), State::Fail, "needs 5 cores"),
            (
                "cores for the plan",
                |it| {
                    it.usable = UsableCores::all_of(vec![0]);
                    it.config = it.config.replace("mode: dedicated", "mode: dedicated, cores: [1, 2, 3, 4]");
                },
                State::Fail,
                "CPUAffinity=1-7",
            ),
            ("isolated cores", |it| it.put(&format!("{CPUS}/isolated"), "1-2\n"), State::Warn, "domain,1-4"),
            (
                "isolated cores",
                |it| {
                    it.put(&format!("{CPUS}/isolated"), "1\n");
                    it.put("sys/fs/cgroup/cpuset.cpus.isolated", "2-4\n");
                },
                State::Ok,
                "threads spin on 1-4",
            ),
            ("timer ticks", |it| it.put(&format!("{CPUS}/nohz_full"), "(null)\n"), State::Note, "4 of the 4 cores"),
            (
                "interrupts",
                |it| it.put("proc/irq/24/smp_affinity_list", "0-3\n"),
                State::Warn,
                "1 of 1 may come to cores that spin (24 nvme0q0)",
            ),
            ("interrupts", |it| it.put("proc/8/comm", "irqbalance\n"), State::Note, "disable --now irqbalance"),
            (
                "hyperthread siblings",
                |it| {
                    [1, 2]
                        .iter()
                        .for_each(|core| it.put(&format!("{CPUS}/cpu{core}/topology/thread_siblings_list"), "1-2\n"))
                },
                State::Warn,
                "cores: [1, 3, 4]",
            ),
            (
                "hyperthread siblings",
                |it| it.put(&format!("{CPUS}/cpu4/topology/thread_siblings_list"), "4,7\n"),
                State::Note,
                "7 share a physical core",
            ),
            ("NUMA nodes", |it| it.put("sys/bus/dax/devices/dax0.0/numa_node", "1\n"), State::Warn, "cores: [5, 6, 7]"),
            // Memory without cores of its own: those are near that its node is least far from.
            ("NUMA nodes", |it| it.put("sys/bus/dax/devices/dax0.0/numa_node", "2\n"), State::Ok, "near node 0"),
        ],
    );
    hold(Machine::laptop, &[("isolated cores", |_| (), State::Ok, "no thread of this configuration spins")]);
}

#[test]
fn power_saving_is_told() {
    let saves = |it: &mut Machine| it.put("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "powersave\n");
    let sleeps = |it: &mut Machine| it.put("sys/devices/system/cpu/cpu2/cpuidle/state2/disable", "0\n");
    hold(
        Machine::good,
        &[
            ("clock governor", saves, State::Warn, "performance on 1-2,4, powersave on 3"),
            (
                "idle states",
                sleeps,
                State::Warn,
                "C6, 170 µs to leave, on core 2 (driver intel_idle, intel_idle.max_cstate=1)",
            ),
        ],
    );
    // Who sleeps anyhow is only told.
    hold(
        Machine::laptop,
        &[("clock governor", saves, State::Note, "cpupower"), ("idle states", sleeps, State::Note, "idle-set")],
    );
}

#[test]
fn what_is_wrong_with_the_device_is_told() {
    const DEVICE: &str = "sys/bus/dax/devices/dax0.0";
    hold(
        Machine::good,
        &[
            ("device mode", |it| it.drive("kmem"), State::Fail, "daxctl reconfigure-device --mode=devdax dax0.0"),
            (
                "device mode",
                |it| fs::remove_file(it.root.join(DEVICE).join("driver")).unwrap(),
                State::Fail,
                "enable-device",
            ),
            ("device mode", |it| it.asked.place = Place::NoDevice, State::Fail, "--device /dev/dax0.0"),
            (
                "device mode",
                |it| {
                    fs::remove_dir_all(it.root.join(DEVICE)).unwrap();
                    it.asked.place = Place::NoDevice;
                },
                State::Fail,
                "there is no device /dev/dax0.0",
            ),
            ("device alignment", |it| it.put(&format!("{DEVICE}/align"), "4096\n"), State::Warn, "4 KiB"),
            (
                "device alignment",
                |it| {
                    it.put(&format!("{DEVICE}/align"), "1073741824\n");
                    it.config = it.config.replace("create: never", "create: never, bytes: 1026MiB");
                },
                State::Fail,
                "bytes: 1073741824",
            ),
            (
                "device size",
                |it| it.config = it.config.replace("create: never", "create: never, bytes: 128GiB"),
                State::Fail,
                "64 GiB; pool.bytes is 128 GiB",
            ),
        ],
    );
}

#[test]
fn what_is_wrong_with_the_processor_is_told() {
    hold(
        Machine::good,
        &[
            ("write-back of lines", |it| it.asked.write_back = "clflush", State::Warn, "coherence: hardware"),
            ("write-back of lines", |it| it.asked.write_back = "clflushopt", State::Note, "clwb"),
            ("checksums", |it| it.config += "instructions: avx2\n", State::Note, "limited to avx2"),
            ("checksums", |it| it.edit("proc/cpuinfo", "pclmulqdq", ""), State::Fail, "-cpu host"),
        ],
    );
}

#[test]
fn ports_and_pools_that_cannot_be_had_are_told() {
    fn refuse(it: &mut Machine, kind: io::ErrorKind) {
        it.asked.ports[0].1 = Err(kind.into());
    }
    fn said(it: &mut Machine) -> &mut PoolSaid {
        it.asked.pool.as_mut().unwrap()
    }
    hold(
        Machine::good,
        &[
            ("ports", |it| refuse(it, io::ErrorKind::AddrInUse), State::Fail, "ss -ltnp 'sport = :7300'"),
            (
                "ports",
                |it| {
                    refuse(it, io::ErrorKind::AddrInUse);
                    said(it).brokers = 1;
                },
                State::Note,
                "1 broker runs of this pool",
            ),
            ("ports", |it| refuse(it, io::ErrorKind::AddrNotAvailable), State::Fail, "0.0.0.0:7300"),
            (
                "ports given by chance",
                |it| it.put("proc/sys/net/ipv4/ip_local_port_range", "1024 65000\n"),
                State::Note,
                "ip_local_reserved_ports=7300",
            ),
            (
                "ports given by chance",
                |it| {
                    it.put("proc/sys/net/ipv4/ip_local_port_range", "1024 65000\n");
                    it.put("proc/sys/net/ipv4/ip_local_reserved_ports", "7300-7303\n");
                },
                State::Ok,
                "none",
            ),
            (
                "pool",
                |it| said(it).writable = Err(io::ErrorKind::PermissionDenied.into()),
                State::Fail,
                "it can be read, and not written",
            ),
            (
                "pool",
                |it| {
                    let source = SuperblockError::Version { found: 5 };
                    it.asked.pool = Err(PoolError::Superblock { path: "/dev/dax0.0".into(), source });
                },
                State::Fail,
                "its layout version is 5",
            ),
            (
                "pool",
                |it| it.asked.pool = Err(PoolError::Missing { path: "/dev/dax0.0".into() }),
                State::Fail,
                "--format-only",
            ),
        ],
    );
    hold(Machine::laptop, &[("pool", |_| (), State::Ok, "there is none yet")]);
}

#[test]
fn of_what_is_not_there_nothing_is_claimed() {
    for config in [BARE, embarcadero::config::EMBEDDED] {
        let mut machine = Machine::empty();
        machine.config = config.into();
        let report = machine.report();
        let unknown = not_ok(&report).iter().filter(|check| check.found.starts_with("not known here: ")).count();
        assert!(unknown >= 9 && report.failed() == 0, "{}", report.text());
        assert!(not_ok(&report).iter().all(|check| check.state == State::Note), "{}", report.text());
    }
}

#[test]
fn the_report_is_read_by_people_and_programs() {
    let mut machine = Machine::good();
    machine.put("sys/devices/system/cpu/isolated", "\n");
    machine.put("sys/devices/system/cpu/nohz_full", "\n");
    machine.asked.rings = Err(RingError::Missing("RECV"));
    let report = machine.report();
    let text = report.text();
    let states: Vec<&str> =
        text.lines().skip(2).filter_map(|line| line.split(' ').next()).filter(|word| !word.is_empty()).collect();
    assert_eq!(states[..4], ["FAIL", "warn", "note", "ok"], "{text}");
    let total = report.checks().count();
    let last = format!("{total} checks: 1 fail, 1 warn, 1 note, {} ok", total - 3);
    assert_eq!(text.lines().last(), Some(&*last));
    let json: Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!((&json["schema"], &json["counts"]["fail"]), (&1.into(), &1.into()));
    let checks = json["checks"].as_array().unwrap();
    assert_eq!(checks.len(), total);
    let isolated = checks.iter().find(|check| check["name"] == "isolated cores").unwrap();
    assert_eq!((&isolated["state"], &isolated["group"]), (&"warn".into(), &"cores".into()));
    assert_eq!(isolated["remedy"][0], "isolcpus=managed_irq,domain,1-4        # kernel command line");
}

#[test]
fn lines_are_no_longer_than_a_screen_is_wide() {
    let mut machines = [Machine::good(), Machine::laptop(), Machine::empty()];
    machines[1].asked.free_bytes = Some(1 << 20);
    machines[2].asked.rings = Err(RingError::LockedMemory { needed: 1 << 20, limit: 65536 });
    for text in machines.map(|machine| machine.report().text()) {
        let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 100).collect();
        assert!(long.is_empty(), "{long:#?}");
    }
}

#[test]
fn the_real_machine_is_asked() {
    let path = std::env::temp_dir().join(format!("embarctl-doctor-pool-{}", std::process::id()));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!("pool: {{ path: {}, bytes: 16MiB }}\nbrokers: [{{ address: \"{address}\" }}]\n", path.display());
    let text = text + "geometry: { extent_bytes: 256KiB }\n";
    let config = Config::parse(&text, "a test").unwrap();
    let needs = Needs::new(config, "a test".into());
    assert!(matches!(Asked::of(&needs).pool, Err(PoolError::Missing { .. })));
    let wanted = embarcadero::embarlet::wanted(&needs.config, 16 << 20);
    let pool = Pool::open_as(&path, &wanted, embarcadero::pool::region::Create::IfMissing).unwrap();
    let asked = Asked::of(&needs);
    let said = asked.pool.as_ref().unwrap();
    assert!(said.agrees.is_ok() && said.writable.is_ok() && said.bytes == 16 << 20 && said.brokers == 0, "{said:?}");
    let refused = asked.ports[0].1.as_ref().unwrap_err().kind();
    assert!(asked.place == Place::File(16 << 20) && refused == io::ErrorKind::AddrInUse, "{refused}");
    let report = examine(&Seen { tree: &Tree::new(Path::new("/")), needs: &needs, asked: &asked });
    assert!(report.checks().any(|(_, check)| check.name == "pool" && check.state == State::Ok), "{}", report.text());
    drop(pool);
    fs::remove_file(&path).unwrap();
}

#[test]
fn cores_and_sizes_are_written_as_people_read_them() {
    assert_eq!((list(&[4, 2, 3, 3, 8]), list(&[])), ("2-4,8".into(), String::new()));
    assert_eq!([0, 1023, 1 << 20, 3 << 29, 1 << 40].map(size), ["0 B", "1023 B", "1 MiB", "1.5 GiB", "1 TiB"]);
}
