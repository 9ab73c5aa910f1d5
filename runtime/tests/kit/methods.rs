//! What the kit promises, method by method. `by_example.rs` shows how to test with it,
//! and `others.rs` has what concerns supervisors, watchers and activation.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use coreside::kit::{HASH_KEY, Kit};
use coreside::{AskError, Cx, End, Later, Name, Reason, ReplyTo, entity, handlers};

const MS: Duration = Duration::from_millis(1);

#[entity]
struct Probe {
    count: u64,
    kept: Option<ReplyTo<u64>>,
    answers: Vec<Result<u64, AskError>>,
}

#[handlers]
impl Probe {
    fn add(&mut self, amount: u64) -> u64 {
        self.count += amount;
        self.count
    }

    fn keep(&mut self, cx: &mut Cx<Self>) -> Later<u64> {
        let (later, reply) = cx.later();
        self.kept = Some(reply);
        later
    }

    fn release(&mut self, cx: &mut Cx<Self>) {
        if let Some(reply) = self.kept.take() {
            cx.reply(reply, 1);
        }
    }

    fn fall(&mut self) {
        panic!("told to fall");
    }

    /// Tells another probe and a peer, then asks the peer.
    fn send(&mut self, to: u64, number: u64, cx: &mut Cx<Self>) {
        assert!(cx.entity::<Probe>(to).add(number).try_tell().is_ok());
        assert!(cx.entity::<Peer>(to).hear(number).try_tell().is_ok());
        let then = |this: &mut Self, answer, _: &mut Cx<Self>| this.answers.push(answer);
        assert!(cx.entity::<Peer>(to).hear(number).within(50 * MS).ask(then).is_ok());
    }

    fn send_to_stranger(&mut self, cx: &mut Cx<Self>) {
        assert!(cx.entity::<Stranger>(1).greet().try_tell().is_ok());
    }

    fn send_to_itself(&mut self, amount: u64, cx: &mut Cx<Self>) {
        let key = cx.key();
        assert!(cx.entity::<Probe>(key).add(amount).try_tell().is_ok());
    }

    fn for_ever(&mut self, cx: &mut Cx<Self>) {
        let key = cx.key();
        assert!(cx.entity::<Probe>(key).for_ever().try_tell().is_ok());
    }

    fn sleep(&mut self, ms: u64, cx: &mut Cx<Self>) -> Later<u64> {
        cx.run(async move |_: &mut Self, cx| {
            cx.sleep(Duration::from_millis(ms)).await;
            cx.unix_ms()
        })
    }

    fn leave(&mut self, cx: &mut Cx<Self>) {
        cx.stop();
    }

    fn set_timer(&mut self, ms: u64, amount: u64, cx: &mut Cx<Self>) -> bool {
        cx.after(Duration::from_millis(ms), ProbeAdd { amount }).is_ok()
    }

    fn deadline(&self, cx: &mut Cx<Self>) -> Option<u64> {
        cx.deadline_ns().map(|at_ns| (at_ns - cx.monotonic_ns()) / 1_000_000)
    }
}

#[entity]
struct Peer;

#[handlers]
impl Peer {
    fn hear(&mut self, number: u64) -> u64 {
        panic!("nobody but the probe runs: {number}");
    }
}

#[entity]
struct Stranger;

#[handlers]
impl Stranger {
    fn greet(&mut self) {}
}

#[entity(key = Name)]
struct Named;

#[handlers]
impl Named {
    fn is_called(&self, name: String, cx: &mut Cx<Self>) -> bool {
        cx.key() == Name::new(name, &HASH_KEY)
    }
}

fn probe() -> Kit<Probe> {
    Kit::builder().other::<Peer>().build(42)
}

/// What a kit says when it fails a test.
fn complaint<R>(test: impl FnOnce() -> R) -> String {
    let panic =
        catch_unwind(AssertUnwindSafe(test)).map(|_| ()).expect_err("the kit fails the test");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).expect("text")
}

#[test]
fn ask_returns_the_answer() {
    let mut kit = probe();
    assert_eq!(kit.ask(ProbeAdd { amount: 2 }), Ok(2));
    assert_eq!(kit.entity().add(3).ask(), Ok(5));
    assert_eq!((kit.key(), kit.entity().key()), (42, 42));
}

#[test]
fn tell_has_run_when_it_returns() {
    let mut kit = probe();
    kit.tell(ProbeAdd { amount: 2 });
    kit.entity().add(3).tell();
    assert_eq!(kit.state(|probe| probe.count), 5);
}

#[test]
fn ask_without_an_answer_says_what_is_missing() {
    let said = complaint(|| probe().ask(ProbeKeep));
    assert!(said.starts_with("Probe/42 has not answered `keep`: it waits for time"), "{said}");
    let said = complaint(|| {
        let mut kit = probe();
        kit.tell(ProbeSend { to: 7, number: 1 });
        drop(kit.ask(ProbeKeep));
    });
    assert!(said.contains("answers to Peer/7 hear are missing"), "{said}");
    let said = complaint(|| {
        let mut kit = probe();
        kit.tell(ProbeFall);
        kit.expect_fault();
        drop(kit.ask(ProbeAdd { amount: 1 }));
    });
    assert!(said.contains("it is being restarted"), "{said}");
}

#[test]
fn begin_gives_the_answer_when_it_is_there() {
    let mut kit = probe();
    let kept = kit.begin(ProbeKeep);
    assert!(!kept.is_answered());
    kit.tell(ProbeRelease);
    assert!(kept.is_answered());
    assert_eq!((kept.take(), kept.take()), (Some(Ok(1)), None));
}

#[test]
fn within_is_the_deadline_that_the_entity_sees() {
    let mut kit = probe();
    assert_eq!(kit.entity().deadline().ask(), Ok(Some(1000)));
    assert_eq!(kit.entity().deadline().within(30 * MS).ask(), Ok(Some(30)));
}

#[test]
fn sent_gives_everything_once_and_in_order() {
    let mut kit = probe();
    for number in 1..=3 {
        kit.entity().send(number * 10, number).tell();
    }
    let order: Vec<_> = kit.untaken().map(|(to, method)| format!("{to} {method}")).collect();
    assert_eq!(order[..3], ["Probe/10 add", "Peer/10 hear", "Peer/10 hear"]);
    let sent = kit.sent::<Peer, PeerHear>();
    let seen: Vec<_> = sent.iter().map(|one| (one.key, one.message.number)).collect();
    assert_eq!(seen, [(10, 1), (10, 1), (20, 2), (20, 2), (30, 3), (30, 3)]);
    assert_eq!((sent[0].within, sent[1].within), (None, Some(50 * MS)));
    assert!(kit.sent::<Peer, PeerHear>().is_empty());
    assert_eq!(kit.sent::<Probe, ProbeAdd>().len(), 3, "another key of the type is another entity");
    kit.expect_nothing_sent();
    assert_eq!(kit.state(|probe| probe.count), 0);
}

#[test]
fn what_the_entity_sends_itself_runs() {
    let mut kit = probe();
    kit.entity().send_to_itself(5).tell();
    kit.expect_nothing_sent();
    assert_eq!(kit.state(|probe| probe.count), 5);
}

#[test]
fn expect_sent_takes_the_oldest_and_names_what_there_is_instead() {
    let mut kit = probe();
    kit.entity().send(7, 1).tell();
    assert_eq!(kit.expect_sent::<Peer, PeerHear>().within, None);
    assert_eq!(kit.expect_sent::<Peer, PeerHear>().within, Some(50 * MS));
    let said = complaint(|| kit.expect_sent::<Peer, PeerHear>());
    assert_eq!(said, "Probe/42 has sent no Peer hear; it has sent [\"Probe/7 add\"]");
    let said = complaint(|| kit.expect_nothing_sent());
    assert_eq!(said, "Probe/42 has sent [\"Probe/7 add\"]");
}

#[test]
fn answer_reaches_the_continuation_with_reply_or_error() {
    let mut kit = probe();
    for answer in [Ok(5), Err(AskError::Failed), Err(AskError::NotSent)] {
        kit.entity().send(7, 1).tell();
        let mut sent = kit.sent::<Peer, PeerHear>();
        kit.answer(sent.pop().expect("the ask"), answer.clone());
        assert_eq!(kit.state(|probe| probe.answers.last().cloned()), Some(answer));
        let told = sent.pop().expect("the tell");
        let said = complaint(|| kit.answer(told, Ok(0)));
        assert!(said.contains("was told, not asked"), "{said}");
    }
}

#[test]
fn when_answers_every_ask_from_then_on() {
    let mut kit = probe();
    kit.entity().send(1, 1).tell();
    kit.when::<Peer, PeerHear>(|key, hear| Ok(key * 100 + hear.number));
    kit.entity().send(7, 2).tell();
    kit.when::<Peer, PeerHear>(|_, _| Err(AskError::Failed));
    kit.entity().send(7, 3).tell();
    let answers = kit.state(|probe| probe.answers.clone());
    assert_eq!(answers, [Ok(702), Err(AskError::Failed)], "not the one before, nor the tells");
    let stubbed = kit.sent::<Peer, PeerHear>().pop().expect("still there to be looked at");
    let said = complaint(|| kit.answer(stubbed, Ok(0)));
    assert!(said.contains("has a stub"), "{said}");
}

#[test]
fn ask_without_an_answer_ends_at_its_own_time() {
    let mut kit = probe();
    kit.entity().send(7, 1).tell();
    kit.advance(49 * MS);
    assert_eq!(kit.state(|probe| probe.answers.len()), 0);
    kit.advance(MS);
    let answers = kit.state(|probe| probe.answers.clone());
    assert_eq!(answers, [Err(AskError::MaybeExecuted)]);
}

#[test]
fn unknown_type_is_named_with_the_way_out() {
    let said = complaint(|| probe().tell(ProbeSendToStranger));
    assert!(said.contains("add `.other::<TheType>()` to `Kit::builder()`"), "{said}");
    assert!(said.contains("Stranger"), "{said}");
    let said = complaint(|| probe().sent::<Stranger, StrangerGreet>());
    assert!(said.contains("Stranger>()` to `Kit::builder()`"), "{said}");
}

#[test]
fn entity_that_never_rests_fails_the_test() {
    let said = complaint(|| probe().tell(ProbeForEver));
    assert!(said.contains("does not come to rest"), "{said}");
}

#[test]
fn unexpected_fault_fails_the_test_when_the_kit_goes() {
    let said = complaint(|| {
        let mut kit = probe();
        kit.tell(ProbeFall);
    });
    assert!(said.contains("fall: told to fall"), "{said}");
    let mut kit = probe();
    kit.tell(ProbeFall);
    assert_eq!(kit.expect_fault().reason, "told to fall");
    let said = complaint(|| kit.expect_fault());
    assert!(said.contains("has had no fault"), "{said}");
}

#[test]
fn time_stands_still_until_it_is_advanced() {
    let mut kit = Kit::<Probe>::builder().other::<Peer>().unix_ms(1_000).build(42);
    let (unix_ms, start_ns) = (kit.unix_ms(), kit.monotonic_ns());
    assert_eq!(unix_ms, 1_000);
    assert_eq!(kit.entity().set_timer(1_000, 7).ask(), Ok(true));
    kit.run();
    assert_eq!((kit.monotonic_ns(), kit.timers()), (start_ns, 1));
    kit.advance(999 * MS);
    assert_eq!(kit.state(|probe| probe.count), 0);
    kit.advance(MS);
    assert_eq!((kit.state(|probe| probe.count), kit.timers()), (7, 0));
    let passed_ns = kit.monotonic_ns() - start_ns;
    assert!((1_000_000_000..1_003_000_000).contains(&passed_ns), "{passed_ns}");
}

#[test]
fn advance_goes_through_each_moment_at_its_time() {
    let mut kit = Kit::<Probe>::builder().ask_timeout(3600 * 1000 * MS).other::<Peer>().build(42);
    let first_ms = kit.unix_ms();
    let first = kit.entity().sleep(1_000).begin();
    let second = kit.entity().sleep(60_000).begin();
    kit.advance(1800 * 1000 * MS);
    let at = |answer: Option<Result<u64, AskError>>| answer.map(|at| at.map(|at| at - first_ms));
    let (first, second) = (at(first.take()), at(second.take()));
    assert!(matches!(first, Some(Ok(1_000..=1_002))), "{first:?}");
    assert!(matches!(second, Some(Ok(61_000..=61_004))), "{second:?}");
}

#[test]
fn state_is_shown_only_where_there_is_one() {
    let mut kit = probe();
    let said = complaint(|| kit.state(|_| ()));
    assert!(said.contains("is not in memory"), "{said}");
    kit.activate();
    assert_eq!(kit.state(|probe| probe.count), 0);
    let sleep = kit.entity().sleep(10).begin();
    let said = complaint(|| kit.state(|_| ()));
    assert!(said.contains("an async turn holds the state"), "{said}");
    kit.advance(10 * MS);
    assert!(sleep.is_answered());
    kit.state(|_| ());
}

#[test]
fn stages_of_a_life_are_told_apart() {
    let mut kit = probe();
    let stages = |kit: &Kit<Probe>| (kit.is_live(), kit.is_busy(), kit.is_restarting());
    assert_eq!(stages(&kit), (false, false, false));
    kit.activate();
    assert_eq!(stages(&kit), (true, false, false));
    drop(kit.entity().sleep(10).begin());
    assert_eq!(stages(&kit), (true, true, false));
    kit.advance(10 * MS);
    kit.tell(ProbeFall);
    kit.expect_fault();
    assert_eq!(stages(&kit), (false, false, true));
    kit.advance(12 * MS);
    assert_eq!(stages(&kit), (true, false, false));
    kit.tell(ProbeLeave);
    assert_eq!(stages(&kit), (false, false, false));
}

#[test]
fn watch_tells_how_the_entity_ends() {
    let mut kit = probe();
    kit.watch();
    assert_eq!(kit.expect_end(), End::NotThere);
    type Ending = fn(&mut Kit<Probe>);
    let leave: Ending = |kit| kit.tell(ProbeLeave);
    let ways: [(Ending, End); 3] =
        [(leave, End::Stopped), (Kit::stop, End::Stopped), (Kit::passivate, End::Passivated)];
    for (way, end) in ways {
        kit.activate();
        kit.watch();
        way(&mut kit);
        assert_eq!(kit.expect_end(), end);
        assert!(!kit.is_live());
    }
    let said = complaint(|| kit.expect_end());
    assert!(said.contains("has not ended"), "{said}");
}

#[test]
fn bounds_can_be_set_to_be_reached() {
    let builder = Kit::<Probe>::builder().other::<Peer>().seed(7);
    let mut kit = builder.config(|config| config.timers_max = 1).build(42);
    assert_eq!(kit.entity().set_timer(1_000, 1).ask(), Ok(true));
    assert_eq!(kit.entity().set_timer(1_000, 1).ask(), Ok(false));
}

#[test]
fn names_are_keys_under_the_hash_key_of_kits() {
    let mut kit = Kit::<Named>::new(Name::new("ada", &HASH_KEY));
    assert_eq!(kit.entity().is_called("ada".to_owned()).ask(), Ok(true));
}

#[test]
fn dead_letter_is_taken_and_replayed() {
    let mut kit = probe();
    let sleep = kit.entity().sleep(10).begin();
    (0..129).for_each(|amount| kit.tell(ProbeAdd { amount }));
    let letter = kit.expect_dead_letter();
    assert_eq!((letter.reason(), kit.stashed()), (Reason::StashFull, 128));
    let said = complaint(|| kit.expect_dead_letter());
    assert!(said.contains("no dead letter"), "{said}");
    kit.advance(10 * MS);
    assert!(sleep.is_answered());
    assert_eq!(kit.state(|probe| probe.count), 127 * 128 / 2);
    kit.replay(letter);
    assert_eq!(kit.state(|probe| probe.count), 128 * 129 / 2);
}
