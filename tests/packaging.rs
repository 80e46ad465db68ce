//! What packaging/ holds is true to the program: files parse, command lines are taken, ports and paths are the agent's, and the
//! service's restrictions let it work. docs/packaging.md says what was tried beyond this.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]

mod agent;

use agent::{Agent, file};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use wgnat::agent::confine::capabilities;
use wgnat::agent::http::routes;
use wgnat::observation::Source;
use yaml_rust2::{Yaml, YamlLoader};

const UNIT: &str = "systemd/wgnat.service";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("packaging/{name}: {e}"))
}

fn toml_of(name: &str) -> toml::Table {
    text(name)
        .parse()
        .unwrap_or_else(|e| panic!("packaging/{name}: {e}"))
}

fn json_of(name: &str) -> Value {
    serde_json::from_str(&text(name)).unwrap_or_else(|e| panic!("packaging/{name}: {e}"))
}

/// A unit's settings: each key with its values in order.
fn unit(name: &str) -> BTreeMap<String, Vec<String>> {
    let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let text = text(name);
    let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
    for (key, value) in lines.filter_map(|line| line.split_once('=')) {
        settings.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    settings
}

fn words(settings: &BTreeMap<String, Vec<String>>, key: &str) -> BTreeSet<String> {
    let values = settings.get(key).map_or(&[][..], Vec::as_slice);
    values
        .iter()
        .flat_map(|v| v.split_whitespace())
        .map(str::to_owned)
        .collect()
}

fn sidecar() -> Vec<Yaml> {
    YamlLoader::load_from_str(&text("kubernetes/sidecar.yaml")).expect("it is YAML")
}

/// The list of a Dockerfile's instruction.
fn list(dockerfile: &str, instruction: &str) -> Vec<String> {
    let text = text(dockerfile);
    let line = text
        .lines()
        .rfind(|line| line.starts_with(&format!("{instruction} [")))
        .unwrap_or_else(|| panic!("{dockerfile} has no {instruction}"));
    serde_json::from_str(&line[instruction.len()..]).expect("it is a JSON list")
}

/// Every command line of the agent in packaging/, by its file, without the program's name.
fn command_lines() -> BTreeMap<&'static str, Vec<String>> {
    let strings =
        |values: &[Value]| -> Vec<String> { values.iter().map(|v| v.as_str().unwrap().to_owned()).collect() };
    let exec = unit(UNIT)["ExecStart"][0].clone();
    let machine = json_of("fly/container/machine.json");
    let container = machine["containers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "wgnat");
    let pods = sidecar();
    let pod = &pods[1]["spec"]["template"]["spec"]["initContainers"][0];
    let args = pod["args"].as_vec().unwrap().iter();
    BTreeMap::from([
        (
            UNIT,
            exec.split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>(),
        ),
        ("docker/Dockerfile", list("docker/Dockerfile", "CMD")),
        (
            "fly/container/machine.json",
            strings(container.unwrap()["cmd"].as_array().unwrap()),
        ),
        (
            "kubernetes/sidecar.yaml",
            args.map(|a| a.as_str().unwrap().to_owned()).collect(),
        ),
    ])
}

/// What follows `--name` or `--name=`.
fn option<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    let joined = args.iter().find_map(|arg| arg.strip_prefix(&format!("{name}=")));
    let next = args.iter().skip_while(|arg| *arg != name).nth(1);
    joined.or(next.map(String::as_str))
}

#[test]
fn every_command_line_is_one_that_the_agent_takes() {
    let dir = tempfile::tempdir().unwrap();
    let token = file(dir.path(), "token", "0123456789abcdef0123\n");
    for (name, args) in command_lines() {
        assert_eq!(args[0], "agent", "{name}");
        // Files that are there only where it is installed.
        let args: Vec<String> = args
            .iter()
            .map(|arg| {
                arg.replace("/etc/wgnat/token", token.to_str().unwrap())
                    .replace(
                        "/etc/wgnat/wgnat.toml",
                        path("debian/wgnat.toml").to_str().unwrap(),
                    )
                    .replace("${STATE_DIRECTORY}", dir.path().to_str().unwrap())
            })
            .collect();
        let output = agent::command()
            .args(&args[1..])
            .arg("--check-config")
            .output()
            .unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.as_slice()),
            (Some(0), &b"the configuration is good\n"[..]),
            "packaging/{name}: {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    // The image's variables are the agent's.
    let image = text("fly/supervised/Dockerfile");
    for name in ["WGNAT_LISTEN=\"[::]:9986\"", "WGNAT_STORE="] {
        assert!(image.contains(name), "{name}");
    }
}

#[test]
fn who_scrapes_is_sent_to_a_port_and_a_path_that_are_there_and_open() {
    let lines = command_lines();
    let port = |name: &str| {
        let listen = option(&lines[name], "--listen").unwrap();
        listen.rsplit_once(':').unwrap().1.parse::<i64>().unwrap()
    };
    let open = |path: &str| assert!(routes::OPEN.contains(&path), "{path} asks for a token");
    for name in ["fly/container/fly.toml", "fly/supervised/fly.toml"] {
        let file = toml_of(name);
        let metrics = file["metrics"].as_table().unwrap();
        assert_eq!(
            metrics["port"].as_integer(),
            Some(port("fly/container/machine.json")),
            "{name}"
        );
        open(metrics["path"].as_str().unwrap());
        assert!(
            !file.contains_key("processes"),
            "{name}: a process group is another machine"
        );
    }
    let machine = json_of("fly/container/machine.json");
    assert_eq!(machine["metrics"]["port"], port("fly/container/machine.json"));
    open(machine["metrics"]["path"].as_str().unwrap());
    let experimental = &toml_of("fly/container/fly.toml")["experimental"];
    let config = experimental["machine_config"].as_str().unwrap();
    assert!(path("fly/container").join(config).exists());
    let names: Vec<&Value> = machine["containers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["name"])
        .collect();
    assert!(names.contains(&&experimental["container"].as_str().unwrap().into()));

    let pods = sidecar();
    let template = &pods[1]["spec"]["template"];
    let annotations = &template["metadata"]["annotations"];
    let wgnat = &template["spec"]["initContainers"][0];
    let asked = port("kubernetes/sidecar.yaml");
    assert_eq!(
        annotations["prometheus.io/port"].as_str(),
        Some(asked.to_string().as_str())
    );
    open(annotations["prometheus.io/path"].as_str().unwrap());
    assert_eq!(wgnat["ports"][0]["containerPort"].as_i64(), Some(asked));
    for probe in ["startupProbe", "livenessProbe"] {
        open(wgnat[probe]["httpGet"]["path"].as_str().unwrap());
        assert_eq!(wgnat[probe]["httpGet"]["port"], wgnat["ports"][0]["name"]);
    }
    let exposed = text("docker/Dockerfile")
        .lines()
        .find_map(|l| l.strip_prefix("EXPOSE ")?.parse().ok());
    assert_eq!(exposed, Some(wgnat::config::agent::LISTEN.port()));
}

#[test]
fn each_gives_the_capabilities_that_the_observers_use() {
    let needed = |other_user| -> BTreeSet<String> {
        let all = Source::ALL
            .iter()
            .flat_map(|source| capabilities(*source, other_user, true));
        all.map(|name| (*name).to_owned()).collect()
    };
    let unit = unit(UNIT);
    let mut as_user = needed(true);
    // The kernel's log is left out there, and the unit says how to have it.
    as_user.remove("CAP_SYSLOG");
    assert_eq!(words(&unit, "CapabilityBoundingSet"), as_user);
    assert_eq!(words(&unit, "AmbientCapabilities"), as_user);
    let image = text("docker/Dockerfile");
    let pods = sidecar();
    let context = &pods[1]["spec"]["template"]["spec"]["initContainers"][0]["securityContext"];
    let added = context["capabilities"]["add"].as_vec().unwrap();
    let added: BTreeSet<&str> = added.iter().filter_map(Yaml::as_str).collect();
    for name in needed(false) {
        let short = name.strip_prefix("CAP_").unwrap();
        assert!(
            image.contains(&format!("--cap-add {short}")),
            "Dockerfile: {name}"
        );
        assert!(added.contains(short), "sidecar.yaml: {name}");
    }
    assert_eq!(context["runAsUser"].as_i64(), Some(0));
}

#[test]
fn the_image_is_built_from_all_that_the_program_is_made_of() {
    let ignore = text("docker/Dockerfile.dockerignore");
    let taken: BTreeSet<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut dirs = vec![source.join("src")];
    let mut seen = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                dirs.push(entry);
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&entry) else {
                continue;
            };
            for included in text.split("include_").skip(1) {
                let Some(("str!" | "bytes!", rest)) = included.split_once('(') else {
                    continue;
                };
                let Some(name) = rest.split('"').nth(1) else {
                    continue;
                };
                let Ok(name) = entry.parent().unwrap().join(name).canonicalize() else {
                    continue;
                };
                let name = name.strip_prefix(source).unwrap();
                // Tests are not built there.
                if name.starts_with("tests") {
                    continue;
                }
                seen += 1;
                let top = name.components().next().unwrap().as_os_str().to_str().unwrap();
                assert!(
                    taken.contains(top),
                    "{} includes {}",
                    entry.display(),
                    name.display()
                );
            }
        }
    }
    assert!(seen > 5, "{seen}");
    for needed in ["Cargo.toml", "Cargo.lock", "src", "benches"] {
        assert!(taken.contains(needed), "{needed}");
    }
}

/// False where the lab is to be skipped; panics where the program is not there.
fn there(program: &str, package: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found && std::env::var("WGNAT_LAB").is_ok_and(|v| v == "skip") {
        println!("skipped: {program} is missing");
        return false;
    }
    assert!(
        found,
        "{program} is missing: install the package {package}, or set WGNAT_LAB=skip"
    );
    true
}

#[test]
fn the_service_is_exposed_less_than_two_and_a_half() {
    if !there("systemd-analyze", "systemd") {
        return;
    }
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(path(UNIT))
        .output()
        .unwrap();
    let (said, complaints) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let level = said.split("exposure level for wgnat.service:").nth(1);
    let level: f64 = level
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("no level: {said}{complaints}"));
    assert!(level < 2.5, "{said}");
    for line in complaints.lines() {
        // Versions before 253, which then take `Type=notify`.
        assert!(line.contains("ignoring: notify-reload"), "{line}");
    }
}

/// System calls by name, of this architecture's header (which the C compiler's package brings).
fn numbers() -> Option<BTreeMap<String, i64>> {
    let header = format!(
        "/usr/include/{}-linux-gnu/asm/unistd_64.h",
        std::env::consts::ARCH
    );
    let text = std::fs::read_to_string(header).ok()?;
    let number = |line: &str| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    };
    Some(text.lines().filter_map(number).collect())
}

/// The calls of a set, with those of the sets in it.
fn calls_of(set: &str, into: &mut BTreeSet<String>) {
    if !set.starts_with('@') {
        into.insert(set.to_owned());
        return;
    }
    let output = Command::new("systemd-analyze")
        .args(["syscall-filter", "--no-pager", set])
        .output()
        .unwrap();
    assert!(output.status.success(), "{set}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|l| !l.starts_with('#') && *l != set && !l.is_empty())
    {
        calls_of(line, into);
    }
}

/// The service's filters of system calls, as systemd would make them.
fn filters(unit: &BTreeMap<String, Vec<String>>) -> Option<Vec<BpfProgram>> {
    let numbers = numbers()?;
    let mut allowed = BTreeSet::new();
    // What systemd allows in any case.
    calls_of("@default", &mut allowed);
    for line in &unit["SystemCallFilter"] {
        let (denied, sets) = line
            .strip_prefix('~')
            .map_or((false, line.as_str()), |rest| (true, rest));
        let mut calls = BTreeSet::new();
        sets.split_whitespace().for_each(|set| calls_of(set, &mut calls));
        if denied {
            allowed.retain(|call| !calls.contains(call));
        } else {
            allowed.append(&mut calls);
        }
    }
    // setpriv, which becomes the service's user here, needs them; the service has no capability for them.
    for call in ["setresuid", "setresgid", "setgroups"] {
        allowed.insert(call.to_owned());
    }
    let allowed = allowed.iter().filter_map(|call| numbers.get(call));
    let eperm = || SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let bit = |argument, bits: i32| {
        let bits = u64::from(bits.unsigned_abs());
        Rule::new(vec![
            Condition::new(argument, Width::Dword, Op::MaskedEq(bits), bits).unwrap(),
        ])
        .unwrap()
    };
    // RestrictAddressFamilies.
    let families: BTreeSet<i32> = words(unit, "RestrictAddressFamilies")
        .iter()
        .map(|name| match name.as_str() {
            "AF_UNIX" => libc::AF_UNIX,
            "AF_INET" => libc::AF_INET,
            "AF_INET6" => libc::AF_INET6,
            "AF_NETLINK" => libc::AF_NETLINK,
            "AF_PACKET" => libc::AF_PACKET,
            other => panic!("{other}"),
        })
        .collect();
    let others = (0..64).filter(|family| !families.contains(family));
    let others = others.map(|family| {
        let is = Condition::new(0, Width::Dword, Op::Eq, u64::from(family.unsigned_abs())).unwrap();
        Rule::new(vec![is]).unwrap()
    });
    let spaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
    ];
    // RestrictNamespaces, MemoryDenyWriteExecute.
    let restricted = BTreeMap::from([
        (libc::SYS_socket, others.collect()),
        (libc::SYS_unshare, Vec::new()),
        (libc::SYS_setns, Vec::new()),
        (libc::SYS_clone, spaces.map(|space| bit(0, space)).into()),
        (libc::SYS_mmap, vec![bit(2, libc::PROT_WRITE | libc::PROT_EXEC)]),
        (libc::SYS_mprotect, vec![bit(2, libc::PROT_EXEC)]),
    ]);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = |rules, otherwise, matching| -> BpfProgram {
        let filter = SeccompFilter::new(rules, otherwise, matching, arch).unwrap();
        filter.try_into().unwrap()
    };
    Some(vec![
        filter(restricted, SeccompAction::Allow, eperm()),
        filter(
            allowed.map(|number| (*number, Vec::new())).collect(),
            eperm(),
            SeccompAction::Allow,
        ),
    ])
}

fn mount(args: &[&str]) {
    let status = Command::new("mount").args(args).status().unwrap();
    assert!(status.success(), "mount {args:?}");
}

/// What systemd does to the file system for this service, in the calling thread's own mount namespace; `state` stays writable.
fn restrict_files(state: &str) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(&["--make-rprivate", "/"]);
    mount(&["--bind", state, state]);
    // PrivateTmp, ProtectHome, PrivateDevices.
    for hidden in ["/tmp", "/home", "/root"] {
        mount(&["-t", "tmpfs", "-o", "mode=1777", "tmpfs", hidden]);
    }
    let devices = format!("{state}/dev");
    std::fs::create_dir(&devices).unwrap();
    mount(&["-t", "tmpfs", "-o", "mode=755", "tmpfs", &devices]);
    for name in ["null", "zero", "full", "random", "urandom"] {
        let (from, to) = (format!("/dev/{name}"), format!("{devices}/{name}"));
        std::fs::write(&to, "").unwrap();
        mount(&["--bind", &from, &to]);
    }
    mount(&["--rbind", &devices, "/dev"]);
    // ProtectKernelTunables, ProtectSystem=strict.
    for place in ["/proc/sys", "/sys"] {
        mount(&["--bind", place, place]);
        mount(&["-o", "remount,bind,ro", place]);
    }
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
    for place in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let writable = ["/proc", "/sys", "/dev", "/tmp", state]
            .iter()
            .any(|top| place.starts_with(top));
        if !writable {
            mount(&["-o", "remount,bind,ro", place]);
        }
    }
}

#[test]
fn within_the_service_s_restrictions_the_agent_sees_as_much_as_without() {
    if !nix::unistd::Uid::effective().is_root() || !there("systemd-analyze", "systemd") {
        println!("skipped: needs root");
        return;
    }
    let settings = unit(UNIT);
    let filters = filters(&settings);
    if filters.is_none() {
        println!("without the filters of system calls: the numbers of this architecture's are not known");
    }
    // Not below /tmp or a home, which are hidden.
    let place = tempfile::Builder::new()
        .prefix("wgnat-test-")
        .tempdir_in("/var/lib")
        .unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("wgnat");
    std::fs::copy(env!("CARGO_BIN_EXE_wgnat"), &program).unwrap();
    std::fs::copy(path("debian/wgnat.toml"), place.path().join("wgnat.toml")).unwrap();
    let state = place.path().join("state");
    std::fs::create_dir(&state).unwrap();
    // As DynamicUser would choose.
    let user = 61_184;
    nix::unistd::chown(&state, Some(user.into()), Some(user.into())).unwrap();
    let args: Vec<String> = command_lines()[UNIT][1..]
        .iter()
        .map(|arg| {
            arg.replace("/etc/wgnat", place.path().to_str().unwrap())
                .replace("${STATE_DIRECTORY}", state.to_str().unwrap())
        })
        .collect();
    let plus = |key: &str| {
        let names = words(&settings, key);
        let names = names
            .iter()
            .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
        format!("-all{}", names.collect::<String>())
    };
    let (bounding, ambient) = (plus("CapabilityBoundingSet"), plus("AmbientCapabilities"));
    // Mounts and filters are this thread's own.
    let restricted = std::thread::spawn(move || {
        restrict_files(state.to_str().unwrap());
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid",
                &user.to_string(),
                "--regid",
                &user.to_string(),
                "--clear-groups",
                "--no-new-privs",
            ])
            .args([
                "--inh-caps",
                &ambient,
                "--ambient-caps",
                &ambient,
                "--bounding-set",
                &bounding,
            ])
            .arg(&program)
            .arg("agent")
            .args(&args)
            .args(["--confine", "require"]);
        for filter in filters.iter().flatten() {
            seccompiler::apply_filter(filter).unwrap();
        }
        let agent = Agent::of(command, agent::free_port());
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.child.id())).unwrap();
        assert!(status.contains(&format!("Uid:\t{user}\t{user}")), "{status}");
        assert!(
            status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"),
            "{status}"
        );
        let report = agent.get("/api/v1/report").json();
        for collector in report["collectors"].as_array().unwrap() {
            // It has no /dev/kmsg.
            if collector["name"] != "kernel-log" {
                assert_ne!(collector["state"], "unavailable", "{collector:#}");
            }
        }
        agent.until("connects are counted in the kernel", |agent| {
            agent.metric("wgnat_collector_state{collector=\"bpf\",state=\"ok\"}") == Some(1.0)
        });
        agent.until("history is written", |agent| {
            agent.metric("wgnat_store_size_bytes").unwrap_or(0.0) > 4096.0
                && agent.metric("wgnat_store_state{state=\"file\"}") == Some(1.0)
        });
        assert!(state.join("history.db").exists());
        agent.signal("HUP");
        agent.logs("the configuration was read anew");
    });
    if let Err(panic) = restricted.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn beside_an_app_in_one_image_the_agent_is_watched_over_and_the_app_decides() {
    let dir = tempfile::tempdir().unwrap();
    let at = agent::free_port();
    let store = dir.path().join("history.db");
    let app = "trap 'exit 7' TERM; echo app-runs; while :; do sleep 0.05; done";
    let mut command = Command::new(path("fly/supervised/start"));
    command
        .args(["sh", "-c", app])
        .env("WGNAT_BIN", env!("CARGO_BIN_EXE_wgnat"))
        .env("WGNAT_TOKEN_DIR", dir.path().join("token"))
        .env("WGNAT_TOKEN", "0123456789abcdef0123")
        .env("WGNAT_STORE", &store)
        .env("WGNAT_LISTEN", at.to_string());
    let mut started = Agent::plain(command, at);
    started.until_ready();
    assert_eq!(
        started.get("/api/v1/report").status,
        401,
        "the token is asked for"
    );
    let right = [("Authorization", "Bearer 0123456789abcdef0123")];
    assert_eq!(started.get_with("/api/v1/report", &right).status, 200);
    let file = std::fs::metadata(dir.path().join("token/token")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    // One that is killed is started anew, and the app goes on.
    let before = started.metric("wgnat_start_time_seconds").unwrap();
    let children = descendants(started.child.id());
    let agent_pid = children.iter().find(|pid| is_agent(**pid)).copied();
    let agent_pid = agent_pid.unwrap_or_else(|| panic!("no agent among {children:?}"));
    assert!(
        Command::new("kill")
            .args(["-KILL", &agent_pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
    started.until("it is started anew", |agent| {
        let answer = agent.request("GET", "/metrics", &[]);
        let text = answer.map(|a| a.body).unwrap_or_default();
        let start = text
            .lines()
            .find_map(|l| l.strip_prefix("wgnat_start_time_seconds ")?.parse::<f64>().ok());
        start.is_some_and(|start| start != before)
    });
    started.signal("TERM");
    assert_eq!(started.wait().code(), Some(7), "the app's own code");
    let reader = wgnat::store::open_readonly(&store).unwrap();
    let events = wgnat::store::query::events(&reader, wgnat::time::Timestamp::EPOCH).unwrap();
    assert_eq!(events.last().unwrap().data["what"], "stopping");
}

fn is_agent(pid: u32) -> bool {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
    exe.is_ok_and(|exe| exe == Path::new(env!("CARGO_BIN_EXE_wgnat")))
}

fn descendants(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut all = Vec::new();
    for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        all.push(child);
        all.extend(descendants(child));
    }
    all
}
