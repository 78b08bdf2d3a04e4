//! Plans: what must hold for all of them, and the ones people will see.

use super::*;

fn role(kind: RoleKind, broker: u32) -> RoleSpec {
    RoleSpec { name: format!("{kind:?} {broker}").to_lowercase(), kind, broker }
}

/// A sequencer, then receive, ack and export of broker after broker, until there are `count`.
fn roles(count: usize) -> Vec<RoleSpec> {
    let kinds = [RoleKind::Receive, RoleKind::Ack, RoleKind::Export];
    let others = (0..count as u32).map(|index| role(kinds[index as usize % 3], index / 3));
    std::iter::once(role(RoleKind::Sequence, 0)).chain(others).take(count).collect()
}

fn cores(count: usize) -> UsableCores {
    UsableCores::all_of((0..count).collect())
}

fn asked(mode: ThreadMode, idle: IdleMode) -> ThreadsConfig {
    ThreadsConfig { mode, idle, ..ThreadsConfig::default() }
}

const MODES: [ThreadMode; 3] = [ThreadMode::Auto, ThreadMode::Shared, ThreadMode::Dedicated];
const IDLES: [IdleMode; 4] = [IdleMode::Auto, IdleMode::Spin, IdleMode::Yield, IdleMode::Park];

fn assert_sound(plan: &Plan, roles: &[RoleSpec], usable: &UsableCores) {
    let mut placed: Vec<usize> = plan.threads.iter().flat_map(|thread| thread.roles.clone()).collect();
    placed.sort_unstable();
    assert_eq!(placed, (0..roles.len()).collect::<Vec<_>>(), "each role on exactly one thread");
    let spinning = plan.threads.iter().filter(|thread| thread.idle == IdlePolicy::Spin).count();
    assert!(spinning < usable.count(), "{spinning} spin on {} cores", usable.count());
    let mut pinned: Vec<usize> = plan.threads.iter().filter_map(|thread| thread.core).collect();
    assert!(pinned.iter().all(|core| usable.ids.contains(core)));
    let all = pinned.len();
    pinned.sort_unstable();
    pinned.dedup();
    assert_eq!(pinned.len(), all, "no two threads on one core");
    for thread in &plan.threads {
        assert!(!thread.roles.is_empty(), "{} has nothing to do", thread.name);
        assert!(thread.roles.is_sorted_by_key(|role| roles[*role].kind), "{} is out of duty order", thread.name);
    }
}

/// All modes, idle settings, 1 to 80 cores, 1 to 40 roles; with all cores chosen, some, and with half a quota.
#[test]
fn every_plan_is_sound() {
    for usable_count in 1..=80usize {
        for role_count in 1..=40 {
            let roles = roles(role_count);
            for (mode, idle) in MODES.into_iter().flat_map(|mode| IDLES.map(|idle| (mode, idle))) {
                for variant in 0..3 {
                    let usable = UsableCores {
                        limit: usable_count.div_ceil(if variant == 1 { 2 } else { 1 }),
                        ..cores(usable_count)
                    };
                    let chosen = (variant == 2).then(|| (0..usable_count).step_by(2).collect());
                    let threads = ThreadsConfig { cores: chosen, ..asked(mode, idle) };
                    let first = plan(&roles, &usable, &threads);
                    assert_eq!(first, plan(&roles, &usable, &threads), "the same twice");
                    match first {
                        Ok(plan) => assert_sound(&plan, &roles, &usable),
                        Err(PlanError::TooFewCores { roles, needed, found }) => {
                            assert!(mode == ThreadMode::Dedicated && needed == roles + 1 && found < needed);
                        }
                        Err(other) => panic!("{usable_count} cores, {role_count} roles, {mode:?}: {other}"),
                    }
                }
            }
        }
    }
}

#[test]
fn two_cores_share_one_parking_thread() {
    for count in [1, 2] {
        let roles = roles(13);
        let plan = plan(&roles, &cores(count), &ThreadsConfig::default()).expect("any number of cores will do");
        let [thread] = &plan.threads[..] else { panic!("{plan:?}") };
        assert_eq!((&*thread.name, thread.core), ("shared", None));
        assert!(matches!(thread.idle, IdlePolicy::Park { .. }));
        let kinds: Vec<RoleKind> = thread.roles.iter().map(|role| roles[*role].kind).collect();
        assert_eq!(
            (kinds[0], kinds[4], kinds[5], kinds[12]),
            (RoleKind::Receive, RoleKind::Sequence, RoleKind::Ack, RoleKind::Export)
        );
        assert_eq!(plan.notes.len(), 1);
    }
}

#[test]
fn a_single_role_on_two_cores_parks_too() {
    let plan = plan(&roles(1), &cores(2), &ThreadsConfig::default()).expect("any number of cores will do");
    assert!(matches!(plan.threads[0].idle, IdlePolicy::Park { .. }) && plan.threads[0].core.is_none(), "{plan:?}");
}

#[test]
fn some_cores_give_the_sequencer_its_own() {
    let roles = roles(13);
    let plan = plan(&roles, &cores(6), &ThreadsConfig::default()).expect("any number of cores will do");
    let shown = plan.describe(&roles);
    assert_eq!(
        shown,
        "thread sequence: core 1, spin: sequence 0\n\
         thread brokers-0: any core, park: receive 0, ack 0, export 0\n\
         thread brokers-1: any core, park: receive 1, ack 1, export 1\n\
         thread brokers-2: any core, park: receive 2, ack 2, export 2\n\
         thread brokers-3: any core, park: receive 3, ack 3, export 3\n\
         note: 13 roles on 6 usable cores do not get a core each\n"
    );
}

#[test]
fn many_cores_give_each_role_one() {
    let roles = roles(13);
    let plan = plan(&roles, &cores(14), &ThreadsConfig::default()).expect("14 cores");
    assert_eq!((plan.threads.len(), plan.notes.len()), (13, 0));
    assert!(plan.threads.iter().all(|thread| thread.idle == IdlePolicy::Spin));
    assert_eq!((plan.threads[0].core, &*plan.threads[0].name), (Some(1), "sequence 0"));
}

#[test]
fn chosen_cores_are_used_in_order() {
    let roles = roles(4);
    let chosen = |cores: &[usize], mode| ThreadsConfig { cores: Some(cores.to_vec()), ..asked(mode, IdleMode::Auto) };
    let pinned = |plan: Plan| plan.threads.iter().map(|thread| thread.core).collect::<Vec<_>>();
    let dedicated = plan(&roles, &cores(8), &chosen(&[7, 5, 3, 1], ThreadMode::Dedicated)).expect("enough");
    assert_eq!(pinned(dedicated), [Some(7), Some(5), Some(3), Some(1)]);
    let grouped = plan(&roles, &cores(8), &chosen(&[7, 5, 3], ThreadMode::Auto)).expect("grouped");
    assert_eq!(pinned(grouped), [Some(7), Some(5)]);
    let confined = plan(&self::roles(13), &cores(8), &chosen(&[7, 5, 3], ThreadMode::Auto)).expect("grouped");
    assert_eq!(pinned(confined), [Some(7), Some(5), Some(3)], "four brokers stay on the two cores left");
    let shared = plan(&roles, &cores(2), &chosen(&[1], ThreadMode::Auto)).expect("shared");
    assert_eq!(pinned(shared), [Some(1)]);
    let refused = plan(&roles, &cores(4), &chosen(&[2, 4], ThreadMode::Auto));
    assert_eq!(refused, Err(PlanError::CoreNotUsable { core: 4, usable: vec![0, 1, 2, 3] }));
}

#[test]
fn what_cannot_be_had_is_refused_or_noted() {
    let dedicated = asked(ThreadMode::Dedicated, IdleMode::Auto);
    assert_eq!(plan(&roles(4), &cores(4), &dedicated), Err(PlanError::TooFewCores { roles: 4, needed: 5, found: 4 }));
    let quota = UsableCores { limit: 4, ..cores(64) };
    assert_eq!(plan(&roles(4), &quota, &dedicated), Err(PlanError::TooFewCores { roles: 4, needed: 5, found: 4 }));
    assert_eq!(plan(&[], &cores(4), &dedicated), Err(PlanError::NoRoles));
    let spin = plan(&roles(4), &cores(1), &asked(ThreadMode::Shared, IdleMode::Spin)).expect("degrades");
    assert!(matches!(spin.threads[0].idle, IdlePolicy::Park { .. }) && spin.notes[0].contains("spin"));
    let crowd = plan(&roles(257), &cores(2), &ThreadsConfig::default());
    assert_eq!(crowd, Err(PlanError::TooManyRoles { roles: 257 }));
}

#[test]
fn cores_far_from_the_pool_are_named() {
    let roles = roles(4);
    let plan = plan(&roles, &cores(16), &asked(ThreadMode::Dedicated, IdleMode::Auto)).unwrap();
    let of = |core: usize| Some(usize::from(core >= 3));
    let told = plan.describe_distance(0, of);
    let far = plan.threads.iter().filter(|thread| thread.core.is_some_and(|core| core >= 3)).count();
    assert!(far > 0 && told.matches("on another node").count() == far, "{told}");
    assert!(!plan.describe_distance(0, |_| None).contains("note"), "nobody says where cores are");
}
