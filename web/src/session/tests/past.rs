//! Sequences of events that went wrong once, or nearly.

use super::fake::{Mail, Mishap, STEPS};
use super::page::{Page, wanted};
use crate::looks::Question;
use crate::protocol::{Event, Look, Report, Request};
use crate::session::{Doing, Input};

/// Cancelled before the first evaluation arrives: the pictures before stay, and so does their
/// attention.
#[test]
fn cancelling_during_the_first_evaluation_keeps_the_pictures_before() {
    let mut page = Page::with_pictures();
    let before = page.run.clone();
    page.generate(1);
    page.step(Input::Cancel);
    assert_eq!(page.doing, Doing::Cancelling);
    page.pump();
    assert_eq!((&page.doing, &page.run), (&Doing::Resting, &before));
    page.ask(0);
    page.pump();
    assert_eq!(page.rows.len(), 1);
    assert_eq!(page.trouble, None);
}

/// The first evaluation is on its way when the order is cancelled: the worker has given up the steps of
/// the pictures that stay, and says so when it is asked for their attention.
#[test]
fn steps_that_were_given_up_for_a_cancelled_order_are_gone() {
    let mut page = Page::with_pictures();
    let before = page.run.clone();
    page.generate(1);
    page.work(0);
    page.step(Input::Cancel);
    page.pump();
    assert_eq!((&page.doing, &page.run), (&Doing::Resting, &before));
    page.ask(0);
    page.pump();
    assert_eq!((page.rows.len(), &page.trouble), (0, &None));
    assert!(page.gone >= before.expect("a run").number);
    // It is not asked for again and again.
    let sent = page.sent.len();
    page.ask(0);
    page.pump();
    assert_eq!(page.sent.len(), sent);
}

/// All is done when the cancellation arrives: no picture is shown that was not wanted any more.
#[test]
fn what_is_done_when_it_is_cancelled_is_cancelled() {
    let mut page = Page::with_pictures();
    page.generate(2);
    page.pump_until(|page| page.run.as_ref().is_some_and(|run| run.frames.len() == 2));
    while page.worker.as_ref().is_some_and(|worker| !worker.idles()) {
        page.work(0);
    }
    page.step(Input::Cancel);
    page.pump();
    assert_eq!(page.doing, Doing::Resting);
    let run = page.run.as_ref().expect("a run");
    assert_eq!((run.frames.len(), run.finished), (2, None));
    page.generate(1);
    page.pump();
    page.shows_pictures();
}

/// Attention of the pictures before arrives after the new ones have begun, or fails since their steps
/// are gone. Neither concerns the new ones.
#[test]
fn attention_that_is_overtaken_by_an_order_is_dropped() {
    for fails in [false, true] {
        let mut page = Page::with_pictures();
        page.ask(0);
        page.generate(1);
        if fails {
            page.suffer(Mishap::Failure, 0);
        } else {
            page.work(0);
        }
        // The answer comes last.
        let late = page.mail.pop_front().expect("an answer");
        page.pump_until(|page| page.run.as_ref().is_some_and(|run| run.frames.len() == 1));
        page.mail.push_back(late);
        page.deliver();
        assert_eq!((page.rows.len(), &page.trouble), (0, &None));
        page.pump();
        page.shows_pictures();
        page.ask(0);
        page.pump();
        assert_eq!(page.rows.len(), 1);
    }
}

/// The pictures that are shown are the only ones to ask about, and an answer that is lost does not keep
/// the next ones from being asked about.
#[test]
fn attention_begins_anew_with_each_run() {
    let mut page = Page::with_pictures();
    let run = page.run.as_ref().expect("a run").number;
    page.ask(0);
    page.work(0);
    page.mail.clear();
    page.generate(1);
    page.pump();
    let asked = |page: &Page| {
        page.sent.iter().filter(|message| matches!(message.request, Request::Attend(_))).count()
    };
    let look = Look { run, step: 0, picture: 0, block: 1, token: [0, 0] };
    page.step(Input::Ask { questions: vec![Question::Token(look)], known: Vec::new() });
    assert_eq!(asked(&page), 1);
    page.ask(0);
    page.pump();
    assert_eq!((asked(&page), page.rows.len()), (2, 1));
}

/// It once ended the orders as well.
#[test]
fn attention_that_fails_does_not_end_an_order() {
    let mut page = Page::with_pictures();
    page.ask(0);
    page.generate(1);
    page.suffer(Mishap::Failure, 0);
    page.deliver();
    assert_eq!(page.doing, Doing::Generating);
    page.pump();
    assert_eq!(page.doing, Doing::Resting);
    assert!(page.run.as_ref().is_some_and(|run| run.finished.is_some()));
}

/// What was typed for a model of latents, and its pictures, do not concern the shipped model.
#[test]
fn the_shipped_model_begins_without_what_belongs_to_another() {
    let mut page = Page::with_pictures();
    page.open("latent");
    page.pump();
    assert_eq!((page.forgotten, &page.run), (1, &None));
    page.step(Input::Choose);
    page.pump();
    assert_eq!((page.forgotten, &page.doing), (2, &Doing::Resting));
    page.generate(1);
    page.pump();
    page.shows_pictures();
    // Nor does a worker that starts again open the other one.
    page.suffer(Mishap::Panic, 0);
    page.pump();
    assert_eq!((&page.doing, page.times_opened("latent")), (&Doing::Resting, 1));
}

#[test]
fn messages_of_a_worker_that_was_ended_are_dropped() {
    let mut page = Page::with_pictures();
    page.generate(1);
    page.work(0);
    let late: Vec<_> = page.mail.drain(..).collect();
    page.suffer(Mishap::Panic, 0);
    page.deliver();
    page.mail.extend(late);
    let before = page.run.clone();
    page.deliver();
    assert_eq!(page.run, before);
    // Its death is not that of the new one.
    let old = page.ghosts[0].number;
    let started = page.worker.as_ref().map(|worker| worker.number);
    page.mail.push_back((old, Mail::Error("late".into())));
    page.deliver();
    assert_eq!(page.worker.as_ref().map(|worker| worker.number), started);
    page.pump();
    page.shows_pictures();
}

/// The worker that was cancelled may die before it says that it stops.
#[test]
fn a_cancelled_order_is_not_made_by_the_next_worker() {
    let mut page = Page::ready();
    page.generate(1);
    page.step(Input::Cancel);
    page.suffer(Mishap::Error, 0);
    page.pump();
    assert_eq!((&page.doing, &page.run), (&Doing::Resting, &None));
    let orders = page.sent.iter().filter(|message| matches!(message.request, Request::Generate(_)));
    assert_eq!(orders.count(), 1);
}

#[test]
fn a_file_that_ends_the_worker_twice_is_dropped() {
    let mut page = Page::ready();
    page.open("kill");
    page.open("model");
    page.pump();
    assert_eq!((&page.doing, page.times_opened("kill")), (&Doing::Resting, 2));
    assert!(page.trouble.as_ref().is_some_and(|trouble| trouble.contains("kill")));
    // The one behind it is not to blame.
    assert_eq!(page.times_opened("model"), 1);
    page.generate(1);
    page.pump();
    page.shows_pictures();
}

/// They may be why: the third worker has none of them.
#[test]
fn files_in_use_are_dropped_when_two_workers_end() {
    let mut page = Page::ready();
    page.open("model");
    page.pump();
    page.generate(1);
    for _ in 0..2 {
        page.suffer(Mishap::Panic, 0);
        page.deliver();
        page.pump_until(|page| page.doing == Doing::Generating);
    }
    page.pump();
    assert_eq!(page.times_opened("model"), 2);
    assert_eq!(page.doing, Doing::Resting);
    assert!(page.trouble.as_ref().is_some_and(|trouble| trouble.contains("model")));
    assert!(page.run.as_ref().is_some_and(|run| run.finished.is_some()));
}

/// A file that is opened while pictures are made waits for them.
#[test]
fn a_file_waits_for_the_pictures() {
    let mut page = Page::ready();
    page.generate(2);
    page.open("model");
    assert_eq!((&page.doing, page.times_opened("model")), (&Doing::Generating, 0));
    // A worker that ends meanwhile changes nothing about that.
    page.suffer(Mishap::Panic, 0);
    page.pump_until(|page| page.times_opened("model") == 1);
    assert!(page.beside.is_some());
    page.pump();
    assert_eq!((page.forgotten, &page.doing), (1, &Doing::Resting));
}

#[test]
fn opening_a_file_can_be_cancelled() {
    let mut page = Page::with_pictures();
    page.open("model");
    page.open("vae");
    assert_eq!(page.doing, Doing::Opening(None));
    page.step(Input::Cancel);
    page.pump();
    assert_eq!((&page.doing, page.forgotten), (&Doing::Resting, 0));
    assert_eq!((page.times_opened("model"), page.times_opened("vae")), (1, 0));
    page.generate(1);
    page.pump();
    page.shows_pictures();
}

/// It was too late to stop it: the page uses what the worker uses.
#[test]
fn a_file_that_is_open_when_it_is_cancelled_is_used() {
    let mut page = Page::with_pictures();
    page.open("model");
    while page.worker.as_ref().is_some_and(|worker| !worker.idles()) {
        page.work(0);
    }
    page.step(Input::Cancel);
    page.pump();
    assert_eq!((&page.doing, page.forgotten), (&Doing::Resting, 1));
}

#[test]
fn a_silent_worker_leads_to_advice() {
    let mut page = Page::ready();
    page.mute = true;
    page.suffer(Mishap::Panic, 0);
    page.pump();
    assert_eq!(page.doing, Doing::Broken);
    assert!(page.trouble.as_ref().is_some_and(|trouble| trouble.contains("Reload the page")));
    page.mute = false;
    page.step(Input::Again);
    page.pump();
    page.generate(1);
    page.pump();
    page.shows_pictures();
}

#[test]
fn a_download_that_stops_leads_to_advice() {
    let mut page = Page::new(&["model"]);
    page.pump_until(|page| page.doing == Doing::Loading(1, 2));
    // Something was heard before the first watch was over.
    page.wait();
    assert_eq!(page.doing, Doing::Loading(1, 2));
    page.wait();
    assert_eq!(page.doing, Doing::Broken);
    assert!(page.trouble.as_ref().is_some_and(|trouble| trouble.contains("network connection")));
    page.step(Input::Again);
    page.pump();
    assert_eq!((&page.doing, page.times_opened("model")), (&Doing::Resting, 1));
}

#[test]
fn a_worker_of_another_version_is_not_used() {
    let mut page = Page::new(&[]);
    let number = page.worker.as_ref().map_or(0, |worker| worker.number);
    let event = Event::Hello { version: "other".into() };
    page.mail.push_back((number, Mail::Report(Report { answers: None, event }, Vec::new())));
    page.deliver();
    assert_eq!((&page.doing, page.sent.len()), (&Doing::Broken, 0));
    assert!(page.trouble.as_ref().is_some_and(|trouble| trouble.contains("different versions")));
}

/// A program that cannot be loaded, and can be loaded later: "Try again" once spoke to a dead worker.
#[test]
fn a_worker_that_could_not_be_loaded_is_started_again() {
    let mut page = Page::new(&[]);
    page.suffer(Mishap::Error, 0);
    page.deliver();
    assert_eq!(page.doing, Doing::Broken);
    page.step(Input::Again);
    page.pump();
    assert_eq!(page.doing, Doing::Resting);
}

/// The weights cannot be loaded any more after a worker was lost: the new one has no model, whatever
/// the page shows.
#[test]
fn a_new_worker_without_a_model_makes_no_pictures() {
    let mut page = Page::with_pictures();
    page.suffer(Mishap::Panic, 0);
    page.pump_until(|page| page.doing == Doing::Starting && page.sent.len() == 3);
    page.suffer(Mishap::Failure, 0);
    page.pump();
    assert_eq!(page.doing, Doing::Broken);
    page.step(Input::Again);
    page.pump();
    page.generate(1);
    page.pump();
    page.shows_pictures();
}

/// The playground needs no model, and is computed beside everything else.
#[test]
fn the_playground_waits_for_nothing() {
    let mut page = Page::new(&[]);
    page.explore(3);
    page.pump_until(|page| page.doing == Doing::Starting && page.sent.len() == 2);
    page.suffer(Mishap::Failure, 0);
    page.pump();
    assert_eq!((&page.doing, page.explored), (&Doing::Broken, Some(3)));
    page.step(Input::Again);
    page.pump();
    page.generate(1);
    page.explore(4);
    page.explore(5);
    page.explore(6);
    assert_eq!(page.doing, Doing::Generating);
    page.work(1);
    page.deliver();
    assert_eq!((page.explored, &page.doing), (Some(4), &Doing::Generating));
    page.pump();
    // Of those that came meanwhile, only the last was computed.
    let computed =
        page.sent.iter().filter(|message| matches!(message.request, Request::Explore(_)));
    assert_eq!((page.explored, computed.count()), (Some(6), 3));
}

/// The steps are there all the same, without pictures: their attention can be asked for.
#[test]
fn an_order_without_previews_shows_its_last_pictures() {
    let mut page = Page::ready();
    let mut order = wanted(0);
    order.order.previews = false;
    page.step(Input::Generate(vec![order]));
    page.pump();
    page.shows_pictures();
    let run = page.run.as_ref().expect("a run");
    let (last, steps) = run.frames.split_last().expect("frames");
    assert!(steps.len() == STEPS && steps.iter().all(|frame| !frame.has_pictures()));
    assert!(steps.iter().all(|frame| frame.sigma == 1.0));
    assert_eq!((last.guess.len(), run.pictured().count()), (4, 1));
    assert_eq!(run.background(0, 3), last.guess.get(3));
    page.ask(0);
    page.pump();
    assert_eq!(page.rows.len(), 1);
}

#[test]
fn orders_are_made_in_their_order() {
    let mut page = Page::ready();
    page.generate(2);
    page.pump();
    page.shows_pictures();
    let order = |run: &Option<crate::session::Run>| run.as_ref().map(|run| run.order.clone());
    assert_eq!(order(&page.beside), Some(wanted(0).order));
    assert_eq!(order(&page.run), Some(wanted(1).order));
}
