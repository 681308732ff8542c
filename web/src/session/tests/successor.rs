//! The worker for graphics processors takes the place of the one for processors.

use super::fake::{Machine, Mishap};
use super::page::Page;
use crate::protocol::Request;
use crate::session::{Doing, Input};

/// A page on a machine with a graphics processor that shows pictures of its first worker.
fn begun() -> Page {
    let mut page = Page::on(Machine::Graphics, &[]);
    page.pump_until(|page| page.doing == Doing::Resting);
    page.generate(1);
    page.pump_until(|page| page.doing == Doing::Resting);
    page.shows_pictures();
    assert_eq!(page.changes, 0);
    page
}

/// Returns whether the worker in use is the one for processors.
fn on_processor(page: &Page) -> bool {
    page.worker.as_ref().expect("a worker").processor
}

#[test]
fn it_takes_over_at_once_where_there_is_nothing_to_lose() {
    let mut page = Page::on(Machine::Graphics, &[]);
    assert!(on_processor(&page));
    page.pump();
    assert_eq!((page.changes, on_processor(&page)), (1, false));
    assert!(!page.waits && page.successor.is_none());
    page.generate(1);
    page.pump();
    page.shows_pictures();
}

#[test]
fn it_takes_over_with_the_next_order() {
    let mut page = begun();
    let before = page.run.clone();
    page.pump();
    // The attention of the pictures that are shown is still there.
    page.ask(0);
    page.pump();
    assert_eq!((page.rows.len(), page.changes, page.waits), (1, 0, true));
    assert_eq!(page.run, before);
    page.generate(2);
    assert_eq!((page.changes, on_processor(&page), page.waits), (1, false, false));
    assert_eq!(page.doing, Doing::Generating);
    page.pump();
    page.shows_pictures();
    page.ask(0);
    page.pump();
    assert_eq!((page.rows.len(), &page.trouble, &page.note), (1, &None, &None));
}

#[test]
fn an_order_is_not_disturbed() {
    let mut page = begun();
    page.generate(2);
    while !page.waits {
        page.work_successor(0);
        page.deliver();
    }
    assert_eq!((&page.doing, page.changes), (&Doing::Generating, 0));
    page.pump_until(|page| page.doing == Doing::Resting);
    page.shows_pictures();
    assert!(page.beside.is_some() && on_processor(&page));
}

#[test]
fn it_opens_what_was_opened_meanwhile() {
    for files in [&["latent", "vae"][..], &["vae"], &["model"], &["model", "vae", "latent"]] {
        let mut page = begun();
        for file in files {
            page.open(file);
        }
        page.pump_until(|page| page.doing == Doing::Resting);
        let model = page.worker.as_ref().and_then(|worker| worker.model.clone());
        page.pump();
        if page.changes == 0 {
            // An autoencoder leaves the pictures where they are.
            assert_eq!(files, ["vae"]);
            page.generate(1);
        }
        page.pump();
        let worker = page.worker.as_ref().expect("a worker");
        assert_eq!((page.changes, worker.processor, &worker.model), (1, false, &model));
        assert_eq!(worker.autoencoder.is_some(), files.contains(&"vae"));
        // The first worker opened each once.
        assert!(files.iter().all(|file| page.times_opened(file) == 1));
        page.generate(1);
        page.pump();
        page.shows_pictures();
    }
}

/// The visitor returns to the shipped model before the successor has opened the other one.
#[test]
fn it_begins_anew_with_another_model() {
    let mut page = begun();
    page.open("model");
    page.pump_until(|page| page.doing == Doing::Resting);
    while page.successor.as_ref().is_some_and(|worker| worker.model.is_none()) {
        page.work_successor(0);
        page.deliver();
    }
    page.step(Input::Choose);
    page.pump();
    assert_eq!((page.changes, &page.doing), (1, &Doing::Resting));
    let worker = page.worker.as_ref().expect("a worker");
    assert_eq!((worker.processor, worker.model.as_deref()), (false, Some("shipped")));
}

#[test]
fn one_that_is_never_ready_is_given_up() {
    let mut page = Page::on(Machine::Graphics, &[]);
    page.mute_successor = true;
    page.pump();
    assert!(page.successor.is_none() && on_processor(&page));
    assert!(page.note.as_ref().is_some_and(|note| note.contains("does not answer")));
    page.generate(1);
    page.pump();
    page.shows_pictures();
}

#[test]
fn a_graphics_processor_that_is_wrong_is_not_used() {
    let mut page = Page::on(Machine::Wrong, &[]);
    page.pump();
    assert!(page.successor.is_none() && on_processor(&page));
    assert_eq!(page.note.as_deref(), Some("wrong results"));
    assert_eq!((page.changes, &page.doing), (0, &Doing::Resting));
}

/// As before: the next worker tries it again, the one after does not.
#[test]
fn one_that_was_lost_twice_is_not_used_again() {
    let mut page = begun();
    page.pump();
    page.generate(1);
    for processor in [false, true] {
        page.suffer(Mishap::Panic, 0);
        page.deliver();
        page.pump_until(|page| page.doing == Doing::Generating);
        assert_eq!(on_processor(&page), processor);
    }
    page.pump();
    page.shows_pictures();
    page.suffer(Mishap::Panic, 0);
    page.pump();
    assert!(on_processor(&page) && page.successor.is_none());
    let starts = page.sent.iter().filter(|message| matches!(message.request, Request::Start(_)));
    assert_eq!(starts.count(), 4);
}

/// What the address names is opened by one worker only, which uses the graphics processor.
#[test]
fn files_of_the_address_are_not_opened_twice() {
    let mut page = Page::on(Machine::Graphics, &["model"]);
    assert!(!on_processor(&page));
    page.pump();
    assert!(page.successor.is_none() && page.changes == 0);
    assert_eq!(page.times_opened("model"), 1);
}
