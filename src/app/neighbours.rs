//! The processes of the app beside us: those of our user in our PID namespace that belong to nobody else.

use std::collections::HashMap;

use procfs::process::{Process, all_processes};

/// What a platform runs beside every app, should it have the app's user.
const OF_THE_PLATFORM: [&str; 3] = [SSHD, "envoy", "healthcheck"];
/// Its children are shells of people.
const SSHD: &str = "diego-sshd";
const ZOMBIE: char = 'Z';
/// No process comes before this one. When it ends, all end with it.
const INIT: i32 = 1;

#[derive(Clone, Debug)]
struct Neighbour {
    name: String,
    parent: i32,
    state: char,
    /// 0: none.
    terminal: i32,
    user: u32,
}

/// Returns how many processes of the app there are; `None` where the system does not tell.
pub(super) fn app_processes() -> Option<usize> {
    let own = Process::myself().ok()?.pid;
    // One that ends meanwhile is no neighbour any more.
    let all = all_processes().ok()?.filter_map(Result::ok);
    let all: HashMap<i32, Neighbour> =
        (all.filter_map(|process| Some((process.pid, look(&process)?)))).collect();
    count(&all, own)
}

fn look(process: &Process) -> Option<Neighbour> {
    let stat = process.stat().ok()?;
    // The owner of its folder in /proc would be root where the process does not let itself be traced.
    let user = process.status().ok()?.euid;
    Some(Neighbour {
        name: stat.comm,
        parent: stat.ppid,
        state: stat.state,
        terminal: stat.tty_nr,
        user,
    })
}

fn count(all: &HashMap<i32, Neighbour>, own: i32) -> Option<usize> {
    let me = all.get(&own)?;
    // Bounded: what was read at different moments may hold a circle.
    let ancestors = |pid: i32| {
        let parent = |pid: &i32| Some(all.get(pid)?.parent).filter(|parent| *parent > 0);
        std::iter::successors(parent(&pid), parent).take(all.len())
    };
    let is_app = |(pid, one): &(&i32, &Neighbour)| {
        one.user == me.user
            && one.state != ZOMBIE
            && **pid != INIT
            // Another proxy waits for the same app.
            && one.name != me.name
            && !OF_THE_PLATFORM.contains(&one.name.as_str())
            // With another terminal than ours it is a shell that somebody has opened.
            && (one.terminal == 0 || one.terminal == me.terminal)
            // What has started us waits for us.
            && !ancestors(own).any(|ancestor| ancestor == **pid)
            && !ancestors(**pid).any(|above| all.get(&above).is_some_and(|above| above.name == SSHD))
    };
    Some(all.iter().filter(is_app).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_app_is_waited_for() {
        // The container of an app: pid, parent, name, user, terminal, state, and whether it is the app's.
        let table = [
            (1, 0, "garden-init", 2000, 0, 'S', false),
            (10, 0, "bash", 2000, 0, 'S', false),
            (11, 10, "outrider", 2000, 0, 'S', false),
            (20, 0, "node", 2000, 0, 'S', true),
            (21, 20, "sh", 2000, 0, 'S', true),
            (22, 20, "node", 2000, 0, 'Z', false),
            (23, 1, "worker", 2000, 0, 'D', true),
            (30, 0, "diego-sshd", 2000, 0, 'S', false),
            (31, 30, "bash", 2000, 34816, 'S', false),
            (32, 31, "top", 2000, 34816, 'S', false),
            (33, 30, "tar", 2000, 0, 'R', false),
            (34, 1, "vim", 2000, 34816, 'S', false),
            (40, 0, "envoy", 0, 0, 'S', false),
            (41, 0, "envoy", 2000, 0, 'S', false),
            (50, 0, "outrider", 2000, 0, 'S', false),
            (60, 61, "odd", 2000, 0, 'S', true),
            (61, 60, "odd", 0, 0, 'S', false),
        ];
        let all: HashMap<_, _> = table
            .iter()
            .map(|&(pid, parent, name, user, terminal, state, _)| {
                let name = name.to_owned();
                (
                    pid,
                    Neighbour {
                        name,
                        parent,
                        state,
                        terminal,
                        user,
                    },
                )
            })
            .collect();
        for &(pid, .., is_app) in table.iter().filter(|row| row.0 != 11) {
            let two = |other: &i32| [pid, 11].contains(other) || [1, 10, 30, 31, 61].contains(other);
            let mut some = all.clone();
            some.retain(|other, _| two(other));
            let with = count(&some, 11);
            assert_eq!(with, Some(usize::from(is_app)), "{pid}");
        }
        assert_eq!(count(&all, 11), Some(4));
        assert_eq!(count(&HashMap::new(), 11), None);
    }

    #[test]
    fn the_system_tells_of_ourselves() {
        let own = Process::myself().unwrap();
        assert_eq!(look(&own).unwrap().user, rustix::process::geteuid().as_raw());
        assert!(app_processes().is_some());
    }
}
