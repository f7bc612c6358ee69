//! A multiple-choice knapsack: one offer of each menu, such that the losses sum up to little and the costs fit a budget.
//!
//! Offers are taken along the lower convex hull of each menu, in the order of loss saved per cost (the Lagrangian
//! relaxation): what is chosen is the best there is for its cost, and only where the next step would pass the budget may
//! something better be missed, by less than that step saves.

use std::cmp::Ordering;

/// What a menu offers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// What it costs.
    pub cost: u64,
    /// What is lost with it; finite.
    pub loss: f64,
}

/// Offers, of which one is taken.
pub type Menu = Vec<Offer>;

/// A change from the offer that a menu has so far to a more expensive one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    menu: usize,
    to: usize,
    cost: u64,
    saved: f64,
}

/// All choices worth making, the cheapest first: each is an index into each menu, and differs from the one before in one
/// menu. The first has the cheapest offer of each. A menu without offers has index 0.
pub fn path(menus: &[Menu]) -> Vec<Vec<usize>> {
    let (mut at, steps) = steps(menus);
    let mut path = vec![at.clone()];
    for step in steps {
        at[step.menu] = step.to;
        path.push(at.clone());
    }
    path
}

/// The best choice within a budget: as far as it goes along [`path`](fn@path), and then whatever steps still fit. `None`
/// if the cheapest choice costs more.
pub fn within(menus: &[Menu], budget: u64) -> Option<Vec<usize>> {
    let (mut at, steps) = steps(menus);
    let spent: u64 = menus.iter().zip(&at).filter_map(|(menu, index)| Some(menu.get(*index)?.cost)).sum();
    let mut left = budget.checked_sub(spent)?;
    let mut closed = vec![false; menus.len()];
    for step in steps {
        // A later step of a menu stands on its earlier ones.
        if closed[step.menu] || step.cost > left {
            closed[step.menu] = true;
            continue;
        }
        left -= step.cost;
        at[step.menu] = step.to;
    }
    Some(at)
}

/// The cheapest offers, and the steps from there, those first that save most for their cost.
fn steps(menus: &[Menu]) -> (Vec<usize>, Vec<Step>) {
    let hulls: Vec<Vec<usize>> = menus.iter().map(hull).collect();
    let mut steps = Vec::new();
    for (menu, (offers, hull)) in menus.iter().zip(&hulls).enumerate() {
        for pair in hull.windows(2) {
            let (a, b) = (offers[pair[0]], offers[pair[1]]);
            steps.push(Step { menu, to: pair[1], cost: b.cost - a.cost, saved: a.loss - b.loss });
        }
    }
    // Steps of one menu are in this order already; equal ones keep the order of the menus.
    steps.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
    (hulls.iter().map(|hull| hull.first().copied().unwrap_or_default()).collect(), steps)
}

/// Loss saved for a unit of cost.
fn rate(step: &Step) -> f64 {
    slope(step.saved, step.cost)
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^53")]
fn slope(saved: f64, cost: u64) -> f64 {
    saved / (cost.max(1) as f64)
}

/// The offers on the lower convex hull of cost and loss, the cheapest first; each saves less for its cost than the one
/// before.
fn hull(offers: &Menu) -> Vec<usize> {
    let mut order: Vec<usize> = (0..offers.len()).collect();
    let by = |a: &usize, b: &usize| -> Ordering {
        let (x, y) = (offers[*a], offers[*b]);
        x.cost.cmp(&y.cost).then(x.loss.total_cmp(&y.loss))
    };
    order.sort_by(by);
    let mut hull: Vec<usize> = Vec::new();
    let rate = |a: usize, b: usize| slope(offers[a].loss - offers[b].loss, offers[b].cost - offers[a].cost);
    for index in order {
        if hull.last().is_some_and(|last| offers[index].loss >= offers[*last].loss) {
            continue;
        }
        while let [.., before, last] = hull[..]
            && rate(before, last) <= rate(last, index)
        {
            hull.pop();
        }
        hull.push(index);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    fn menu(offers: &[(u64, f64)]) -> Menu {
        offers.iter().map(|(cost, loss)| Offer { cost: *cost, loss: *loss }).collect()
    }

    #[test]
    fn the_best_step_comes_first_and_bad_offers_never() {
        // In the second menu the middle offer is above the line between its neighbours, and the last is no better.
        let menus = [menu(&[(4, 9.0), (8, 1.0)]), menu(&[(1, 8.0), (2, 7.5), (3, 0.0), (9, 0.0)]), menu(&[])];
        assert_eq!(path(&menus), [[0, 0, 0], [0, 2, 0], [1, 2, 0]]);
        assert_eq!(within(&menus, 4), None);
        assert_eq!(within(&menus, 6), Some(vec![0, 0, 0]));
        assert_eq!(within(&menus, 7), Some(vec![0, 2, 0]));
        // The first step is too large, the second fits.
        assert_eq!(within(&[menu(&[(0, 9.0), (5, 0.0)]), menu(&[(0, 1.0), (1, 0.5)])], 2), Some(vec![0, 1]));
    }

    /// All choices, one by one.
    fn exact(menus: &[Menu], budget: u64) -> f64 {
        let mut best = vec![(0_u64, 0.0_f64)];
        for menu in menus {
            best = best.iter().flat_map(|(c, l)| menu.iter().map(move |o| (c + o.cost, l + o.loss))).collect();
        }
        best.into_iter().filter(|(cost, _)| *cost <= budget).map(|(_, loss)| loss).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn no_choice_is_much_better_than_the_one_made() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..50 {
            let mut offer = || (random(20), f64::from(u32::try_from(random(100)).unwrap_or(0)));
            let menus: Vec<Menu> = (0..5).map(|_| menu(&[offer(), offer(), offer()])).collect();
            let cost = |chosen: &[usize]| menus.iter().zip(chosen).map(|(m, i)| m[*i].cost).sum::<u64>();
            let loss = |chosen: &[usize]| menus.iter().zip(chosen).map(|(m, i)| m[*i].loss).sum::<f64>();
            let along = path(&menus);
            for (chosen, next) in along.iter().zip(along.iter().skip(1)) {
                // On the path nothing is better; between two of its places nothing by more than the step.
                assert!(loss(chosen) <= exact(&menus, cost(chosen)) + 1e-9);
                let budget = cost(next) - 1;
                let found = within(&menus, budget).expect("the budget holds the cheapest");
                assert!(cost(&found) <= budget);
                assert!(loss(&found) <= exact(&menus, budget) + loss(chosen) - loss(next) + 1e-9);
            }
        }
    }
}
