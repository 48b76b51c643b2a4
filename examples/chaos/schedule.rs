//! Which fault comes when: drawn from the seed alone, so that the same seed draws the same ones.

use std::fmt;
use std::time::Duration;

use crate::instances::INSTANCES;

/// Random numbers from a seed (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least))
    }

    fn instance(&mut self) -> usize {
        usize::try_from(self.below(INSTANCES as u64)).unwrap_or(0)
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap_or(0)]
    }
}

/// How a server goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// It ends its sessions and writes a checkpoint.
    Fast,
    /// It ends at once and recovers by its log.
    Immediate,
}

/// What becomes of events that cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Mended,
    Discarded,
}

/// What goes wrong, or what an operator does.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// kill -9 of an instance, and a start after this time.
    Kill {
        instance: usize,
        back: Duration,
    },
    /// SIGSTOP of an instance, and SIGCONT after this time.
    Stop {
        instance: usize,
        length: Duration,
    },
    /// Every connection of an instance ends in the middle of whatever it carries.
    Cut {
        instance: usize,
    },
    /// Nothing passes between an instance and the server.
    Freeze {
        instance: usize,
        length: Duration,
    },
    /// Every second session of the engines is ended by the server.
    Terminate,
    /// kill -9 of a session's process: the server ends all of them and recovers by its log.
    Crash {
        backend: u64,
    },
    Restart {
        how: Shutdown,
        down: Duration,
    },
    /// The replica takes over from a primary that ended in order, or was killed.
    Failover {
        planned: bool,
    },
    /// Events that cannot be applied, until they are.
    Poison {
        events: u64,
        fate: Fate,
        after: Duration,
    },
    /// Another number in the file, and a restart of one instance after the other.
    Partitions {
        projection: &'static str,
        partitions: u64,
    },
    /// An operator holds a projection for this time.
    Pause {
        projection: &'static str,
        length: Duration,
    },
}

type Draw = fn(&mut Random) -> Fault;

/// Each is drawn as often as it is listed here before any is drawn more often.
const BAG: [(usize, Draw); 12] = [
    (4, |r| Fault::Kill {
        instance: r.instance(),
        back: r.millis(100, 5_000),
    }),
    (3, |r| Fault::Stop {
        instance: r.instance(),
        length: r.millis(500, 7_000),
    }),
    (3, |r| Fault::Cut {
        instance: r.instance(),
    }),
    (3, |r| Fault::Freeze {
        instance: r.instance(),
        length: r.millis(500, 7_000),
    }),
    (2, |_| Fault::Terminate),
    (1, |r| Fault::Crash {
        backend: r.below(1_000),
    }),
    (1, |r| Fault::Restart {
        how: Shutdown::Fast,
        down: r.millis(0, 2_000),
    }),
    (1, |r| Fault::Restart {
        how: Shutdown::Immediate,
        down: r.millis(0, 2_000),
    }),
    (1, |r| Fault::Failover {
        planned: r.below(3) == 0,
    }),
    (3, |r| Fault::Poison {
        events: 1 + r.below(4),
        fate: r.one_of(&[Fate::Mended, Fate::Mended, Fate::Discarded]),
        after: r.millis(500, 6_000),
    }),
    (2, |r| Fault::Partitions {
        projection: r.one_of(&["four", "parks"]),
        partitions: 1 + r.below(7),
    }),
    (1, |r| Fault::Pause {
        projection: r.one_of(&["one", "four", "typed", "parks", "in_rust"]),
        length: r.millis(500, 4_000),
    }),
];

/// The faults of so much time, each with its own.
pub(crate) fn draw(seed: u64, length: Duration) -> Vec<(Duration, Fault)> {
    let mut random = Random::new(seed);
    let mut faults = Vec::new();
    let mut bag: Vec<Draw> = Vec::new();
    // What runs before the first of them is part of the run too.
    let mut at = random.millis(2_000, 3_000);
    while at < length {
        if bag.is_empty() {
            let all = BAG.iter().flat_map(|(often, draw)| vec![*draw; *often]);
            bag.extend(all);
        }
        let chosen = usize::try_from(random.below(bag.len() as u64)).unwrap_or(0);
        let fault = bag.swap_remove(chosen)(&mut random);
        faults.push((at, fault));
        at += random.millis(200, 3_800);
    }
    faults
}

impl Fault {
    /// What it is called in the table.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Fault::Kill { .. } => "kill -9 of an instance",
            Fault::Stop { .. } => "SIGSTOP of an instance",
            Fault::Cut { .. } => "connections cut",
            Fault::Freeze { .. } => "connections frozen",
            Fault::Terminate => "sessions terminated",
            Fault::Crash { .. } => "kill -9 of a backend",
            Fault::Restart {
                how: Shutdown::Fast,
                ..
            } => "server restart, fast",
            Fault::Restart {
                how: Shutdown::Immediate,
                ..
            } => "server restart, immediate",
            Fault::Failover { planned: true } => "failover, planned",
            Fault::Failover { planned: false } => "failover, unplanned",
            Fault::Poison {
                fate: Fate::Mended, ..
            } => "poison, fixed and retried",
            Fault::Poison {
                fate: Fate::Discarded,
                ..
            } => "poison, discarded",
            Fault::Partitions { .. } => "number of partitions changed",
            Fault::Pause { .. } => "pause and resume",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Fault::Kill { instance, back } => write!(f, "{kind} {instance}, back after {back:?}"),
            Fault::Stop { instance, length } => write!(f, "{kind} {instance} for {length:?}"),
            Fault::Cut { instance } => write!(f, "{kind} of instance {instance}"),
            Fault::Freeze { instance, length } => {
                write!(f, "{kind} of instance {instance} for {length:?}")
            }
            Fault::Restart { down, .. } => write!(f, "{kind}, down for {down:?}"),
            Fault::Poison { events, after, .. } => write!(f, "{kind}: {events} events, {after:?}"),
            Fault::Partitions {
                projection,
                partitions,
            } => {
                write!(f, "{kind}: {projection} to {partitions}")
            }
            Fault::Pause { projection, length } => write!(f, "{kind}: {projection} for {length:?}"),
            Fault::Terminate | Fault::Crash { .. } | Fault::Failover { .. } => f.write_str(kind),
        }
    }
}
