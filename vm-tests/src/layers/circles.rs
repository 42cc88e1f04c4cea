//! Circles in a graph: sets of nodes that reach each other.

/// Every circle of more than one node, the longest first. `edges[from]` lists where `from` leads.
///
/// Tarjan's algorithm with the stack kept by hand, so that a long chain of files does not need a
/// deep stack.
pub(super) fn circles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut state =
        State { order: vec![None; edges.len()], lowest: vec![0; edges.len()], ..State::default() };
    for start in 0..edges.len() {
        if state.order[start].is_none() {
            visit_from(start, edges, &mut state);
        }
    }
    state.found.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    state.found
}

#[derive(Default)]
struct State {
    /// When a node was first seen.
    order: Vec<Option<usize>>,
    /// The earliest node that is known to be in the same circle.
    lowest: Vec<usize>,
    /// Nodes whose circle is not complete.
    open: Vec<usize>,
    seen: usize,
    found: Vec<Vec<usize>>,
}

impl State {
    fn enter(&mut self, node: usize) {
        self.order[node] = Some(self.seen);
        self.lowest[node] = self.seen;
        self.seen += 1;
        self.open.push(node);
    }

    fn leave(&mut self, node: usize) {
        if self.order[node] != Some(self.lowest[node]) {
            return;
        }
        let at = self.open.iter().rposition(|&open| open == node).unwrap_or(0);
        let mut circle = self.open.split_off(at);
        if circle.len() > 1 {
            circle.sort_unstable();
            self.found.push(circle);
        }
    }
}

fn visit_from(start: usize, edges: &[Vec<usize>], state: &mut State) {
    state.enter(start);
    let mut path = vec![(start, 0)];
    while let Some((node, next)) = path.pop() {
        let Some(&to) = edges[node].get(next) else {
            state.leave(node);
            if let Some(&(parent, _)) = path.last() {
                state.lowest[parent] = state.lowest[parent].min(state.lowest[node]);
            }
            continue;
        };
        path.push((node, next + 1));
        match state.order[to] {
            None => {
                state.enter(to);
                path.push((to, 0));
            }
            Some(order) if state.open.contains(&to) => state.lowest[node] = state.lowest[node].min(order),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_reach_each_other_are_a_circle() {
        //  0 → 1 → 2 → 0, 2 → 3 → 4 → 3, 5 → 5, 6 → 0
        let edges = [vec![1], vec![2], vec![0, 3], vec![4], vec![3], vec![5], vec![0]].to_vec();
        assert_eq!(circles(&edges), [vec![0, 1, 2], vec![3, 4]]);
        assert!(circles(&[vec![1, 2], vec![2], vec![]]).is_empty());
    }
}
