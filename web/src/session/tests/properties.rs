//! What must hold whatever happens, and in which order.

use proptest::prelude::*;

use super::fake::{Machine, Mishap};
use super::page::Page;
use crate::session::task::Task;
use crate::session::{Doing, Input};

/// Something that happens.
#[derive(Clone, Debug)]
enum Act {
    Generate(usize),
    Cancel,
    Open(&'static str),
    Choose,
    Again,
    Ask(usize),
    Explore(u64),
    /// The worker sends a message about one of its requests.
    Work(usize),
    /// A message arrives.
    Deliver,
    /// The last message arrives twice.
    Repeat,
    /// A worker that was ended sends a message.
    Haunt(usize),
    Mishap(Mishap, usize),
    Wait,
    /// The next workers are silent, or not.
    Mute(bool),
    /// The successor sends a message about one of its requests.
    WorkSuccessor(usize),
    MishapSuccessor(Mishap, usize),
    /// The next successors are silent, or not.
    MuteSuccessor(bool),
}

const FILES: [&str; 5] = ["model", "latent", "vae", "bad", "kill"];

fn act() -> impl Strategy<Value = Act> {
    let mishap = || {
        prop::sample::select(vec![
            Mishap::Panic,
            Mishap::Shortage,
            Mishap::Error,
            Mishap::Failure,
            Mishap::NoRoom,
            Mishap::Silence,
        ])
    };
    prop_oneof![
        3 => (1usize..3).prop_map(Act::Generate),
        2 => Just(Act::Cancel),
        2 => prop::sample::select(FILES.to_vec()).prop_map(Act::Open),
        1 => Just(Act::Choose),
        1 => Just(Act::Again),
        2 => (0usize..4).prop_map(Act::Ask),
        1 => (0u64..9).prop_map(Act::Explore),
        20 => (0usize..4).prop_map(Act::Work),
        20 => Just(Act::Deliver),
        2 => Just(Act::Repeat),
        1 => (0usize..4).prop_map(Act::Haunt),
        2 => (mishap(), 0usize..4).prop_map(|(mishap, which)| Act::Mishap(mishap, which)),
        1 => Just(Act::Wait),
        1 => prop::bool::weighted(0.3).prop_map(Act::Mute),
        10 => (0usize..4).prop_map(Act::WorkSuccessor),
        1 => (mishap(), 0usize..4).prop_map(|(mishap, which)| Act::MishapSuccessor(mishap, which)),
        1 => prop::bool::weighted(0.3).prop_map(Act::MuteSuccessor),
    ]
}

fn apply(page: &mut Page, act: &Act) {
    match *act {
        Act::Generate(orders) => page.generate(orders),
        Act::Cancel => page.step(Input::Cancel),
        Act::Open(name) => {
            page.open(name);
        }
        Act::Choose => page.step(Input::Choose),
        Act::Again => page.step(Input::Again),
        Act::Ask(block) => page.ask(block),
        Act::Explore(seed) => page.explore(seed),
        Act::Work(which) => page.work(which),
        Act::Deliver => page.deliver(),
        Act::Repeat => page.mail.extend(page.mail.back().cloned()),
        Act::Haunt(which) => {
            let ghosts = page.ghosts.len();
            if ghosts > 0 {
                page.ghosts[ghosts - 1 - which % ghosts].go_on(which, &mut page.mail);
            }
        }
        Act::Mishap(mishap, which) => page.suffer(mishap, which),
        Act::Wait => page.wait(),
        Act::Mute(mute) => page.mute = mute,
        Act::WorkSuccessor(which) => page.work_successor(which),
        Act::MishapSuccessor(mishap, which) => page.suffer_successor(mishap, which),
        Act::MuteSuccessor(mute) => page.mute_successor = mute,
    }
}

/// From here on, the worker answers everything. Brings the page to rest as a visitor would.
fn calm(page: &mut Page) {
    (page.mute, page.mute_successor) = (false, false);
    page.pump();
    let swallowed = page.worker.as_ref().is_some_and(|worker| !worker.swallowed.is_empty());
    let rests = matches!(page.doing, Doing::Resting | Doing::Broken);
    // A worker may compute as long as it likes, so only the visitor knows that this one does not.
    assert!(rests || swallowed, "{:?}", page.session);
    if page.doing == Doing::Broken {
        assert!(page.trouble.is_some());
    }
    let mut tries = 0;
    while page.doing != Doing::Resting {
        tries += 1;
        assert!(tries < 8, "it stays {:?}: {:?}", page.doing, page.trouble);
        page.step(Input::Again);
        page.pump();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// [`Page`] checks every step: one order at a time, frames and attention of the run that is shown
    /// only, nothing after a cancellation, no file that has ended two workers, a task that agrees
    /// with the queue and with what is shown, and a successor that takes over at rest only, with all that
    /// is in use.
    #[test]
    fn whatever_happens_there_are_pictures_in_the_end(
        machine in prop::sample::select(vec![Machine::Plain, Machine::Graphics, Machine::Wrong]),
        named in prop::collection::vec(prop::sample::select(FILES.to_vec()), 0..2),
        acts in prop::collection::vec(act(), 0..120),
    ) {
        let mut page = Page::on(machine, &named);
        let mut asked = None;
        for act in &acts {
            apply(&mut page, act);
            if let Act::Explore(seed) = act {
                asked = Some(*seed);
            }
        }
        calm(&mut page);
        page.generate(2);
        page.pump();
        page.shows_pictures();
        prop_assert!(page.beside.is_some());
        prop_assert!(machine == Machine::Graphics || page.changes == 0);
        // The worker has their steps.
        page.ask(7);
        page.pump();
        prop_assert!(page.rows.iter().any(|look| look.block == 7));
        // The playground has had its turn, unless its request failed.
        let failed = acts.iter().any(|act| {
            matches!(act, Act::Mishap(Mishap::Failure | Mishap::NoRoom, _))
        });
        if !failed {
            prop_assert_eq!(page.explored, asked);
        }
    }

    /// A mishap at every message: the order is made all the same, or it is said why not.
    #[test]
    fn an_order_survives_a_mishap_at_any_message(
        at in 0usize..12,
        mishap in prop::sample::select(vec![Mishap::Panic, Mishap::Error, Mishap::Shortage]),
        cancels in any::<bool>(),
    ) {
        let mut page = Page::with_pictures();
        let before = page.run.clone();
        page.generate(1);
        for _ in 0..at {
            page.work(0);
            page.deliver();
        }
        let made = page.doing == Doing::Resting;
        if cancels {
            page.step(Input::Cancel);
        }
        page.suffer(mishap, 0);
        page.pump();
        prop_assert_eq!(&page.doing, &Doing::Resting);
        if !made && !cancels && mishap == Mishap::Shortage {
            prop_assert!(page.smaller.is_some());
            prop_assert!(page.trouble.as_ref().is_some_and(|text| text.contains("not enough memory")));
        } else if !made && !cancels {
            page.shows_pictures();
            prop_assert_ne!(&page.run, &before);
        }
        page.generate(1);
        page.pump();
        page.shows_pictures();
    }

    /// A successor that goes wrong at any message changes nothing but the note, which is said once. One
    /// that does not takes over between two orders.
    #[test]
    fn a_successor_takes_over_or_nothing_changes(
        orders in 0usize..3,
        at in 0usize..8,
        mishap in prop::option::of(prop::sample::select(vec![
            Mishap::Panic, Mishap::Error, Mishap::Shortage, Mishap::Failure, Mishap::Silence,
        ])),
        late in 0usize..9,
    ) {
        let mut page = Page::on(Machine::Graphics, &[]);
        page.pump_until(|page| page.doing == Doing::Resting);
        page.generate(orders);
        for _ in 0..at {
            page.work_successor(0);
            page.work(0);
            page.deliver();
            page.deliver();
        }
        let changed = page.changes;
        if let Some(mishap) = mishap {
            page.suffer_successor(mishap, 0);
        }
        page.pump();
        prop_assert_eq!(&page.doing, &Doing::Resting);
        prop_assert_eq!(&page.trouble, &None);
        let refused = page.note.clone().is_some_and(|note| note.contains("not used"));
        prop_assert!(page.changes <= 1 && !(refused && page.changes > changed));
        for _ in 0..late {
            for ghost in &mut page.ghosts {
                ghost.go_on(0, &mut page.mail);
            }
        }
        page.generate(1);
        page.pump();
        page.shows_pictures();
        let processor = page.worker.as_ref().is_some_and(|worker| worker.processor);
        prop_assert_eq!(processor, page.changes == 0);
        // It is not tried again, and not mentioned again.
        if refused {
            page.note = None;
            page.suffer(Mishap::Panic, 0);
            page.pump();
            prop_assert!(page.successor.is_none() && page.changes == 0);
            prop_assert!(!page.note.clone().is_some_and(|note| note.contains("not used")));
        } else if mishap.is_none() {
            prop_assert_eq!(page.changes, 1);
        }
    }

    /// With a worker that never answers, time alone does not end what may take long.
    #[test]
    fn only_a_silence_that_is_wrong_ends_a_worker(steps in 0usize..40, waits in 1usize..6) {
        let mut page = Page::new(&[]);
        page.pump_until(|page| page.doing == Doing::Resting);
        page.open("model");
        for _ in 0..steps {
            page.work(0);
            page.deliver();
            if page.doing == Doing::Resting {
                page.generate(1);
            }
        }
        let before = page.doing.clone();
        for _ in 0..waits {
            page.wait();
        }
        prop_assert_eq!(&page.doing, &before);
        prop_assert!(!matches!(page.session.task, Task::Broken));
    }
}
