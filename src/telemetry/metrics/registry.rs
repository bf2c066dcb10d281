//! Which shards there are: made by control for every configuration, carried over by name.

use std::{collections::HashMap, sync::Arc};

use super::{
    cell::Summed,
    shards::{
        ConsumerShard, EndpointShard, LimitShard, ListenerShard, RouteShard, Series,
        UpstreamSeries, UpstreamShard, WorkerShard,
    },
};

/// What a configuration has, by name.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub listeners: Vec<String>,
    pub routes: Vec<String>,
    pub upstreams: Vec<UpstreamNames>,
    pub limits: Vec<String>,
    /// The first of them, at most `series_max`.
    pub consumers: Vec<String>,
    pub has_more_consumers: bool,
    /// Routes, endpoints and consumers that have series of their own; the rest share one called
    /// [`OTHER`].
    pub series_max: usize,
    /// Only the workers as such are counted.
    pub is_off: bool,
}

#[derive(Clone, Debug, Default)]
pub struct UpstreamNames {
    pub name: String,
    pub endpoints: Vec<String>,
}

/// Stands for what is beyond `series_max`.
pub const OTHER: &str = "(other)";

/// The shards of one thing, by worker.
pub type Shards<T> = Vec<Arc<T>>;
/// The upstream, its shards, and its endpoints with theirs.
pub type UpstreamShards = (String, Shards<UpstreamShard>, Vec<(String, Shards<EndpointShard>)>);

/// Every shard of the configuration in force, in its order. Kept by control.
#[derive(Debug)]
pub struct Registry {
    pub workers: Shards<WorkerShard>,
    pub listeners: Vec<(String, Shards<ListenerShard>)>,
    /// The first is requests without route; its name is empty.
    pub routes: Vec<(String, Shards<RouteShard>)>,
    pub consumers: Vec<(String, Shards<ConsumerShard>)>,
    pub upstreams: Vec<UpstreamShards>,
    pub limits: Vec<(String, Shards<LimitShard>)>,
}

impl Registry {
    pub fn new(workers: usize) -> Registry {
        Registry {
            workers: shards(workers),
            listeners: Vec::new(),
            routes: vec![(String::new(), shards(workers))],
            consumers: Vec::new(),
            upstreams: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// Goes over to another configuration. Names that it also has keep their shards; the others'
    /// are forgotten. Answers every worker's series.
    pub fn adopt(&mut self, names: &Names) -> Vec<Arc<Series>> {
        let workers = self.workers.len();
        let mut known = Known {
            workers,
            listeners: self.listeners.drain(..).collect(),
            routes: self.routes.drain(..).collect(),
            consumers: self.consumers.drain(..).collect(),
            upstreams: HashMap::new(),
            limits: self.limits.drain(..).collect(),
            endpoints: HashMap::new(),
        };
        for (upstream, shards, endpoints) in self.upstreams.drain(..) {
            for (endpoint, shards) in endpoints {
                known.endpoints.insert((upstream.clone(), endpoint), shards);
            }
            known.upstreams.insert(upstream, shards);
        }
        let mut building: Vec<Series> = (0..workers).map(|w| self.empty(w, &mut known)).collect();
        self.routes.push((String::new(), of_all(&building, |s| &s.unrouted)));
        building.iter_mut().for_each(|series| series.is_off = names.is_off);
        self.adopt_listeners(names, &mut known, &mut building);
        self.adopt_routes(names, &mut known, &mut building);
        self.adopt_consumers(names, &mut known, &mut building);
        self.adopt_upstreams(names, &mut known, &mut building);
        self.adopt_limits(names, &mut known, &mut building);
        building.into_iter().map(Arc::new).collect()
    }

    fn empty(&self, worker: usize, known: &mut Known) -> Series {
        let unrouted = known.routes.entry(String::new()).or_insert_with(|| shards(known.workers));
        Series {
            worker: self.workers[worker].clone(),
            listeners: Vec::new(),
            routes: Vec::new(),
            unrouted: unrouted[worker].clone(),
            consumers: Vec::new(),
            upstreams: Vec::new(),
            limits: Vec::new(),
            is_off: false,
        }
    }

    fn adopt_listeners(&mut self, names: &Names, known: &mut Known, building: &mut [Series]) {
        let mut places = HashMap::new();
        for name in &names.listeners {
            let shards = take(&mut self.listeners, &mut places, name, || {
                known.listeners.remove(name).unwrap_or_else(|| shards(known.workers))
            });
            hand_out(building, &shards, |series| &mut series.listeners);
        }
    }

    fn adopt_routes(&mut self, names: &Names, known: &mut Known, building: &mut [Series]) {
        let mut places = HashMap::new();
        for (at, name) in names.routes.iter().enumerate() {
            let name = if at < names.series_max { name.as_str() } else { OTHER };
            let shards = take(&mut self.routes, &mut places, name, || {
                known.routes.remove(name).unwrap_or_else(|| shards(known.workers))
            });
            hand_out(building, &shards, |series| &mut series.routes);
        }
    }

    fn adopt_consumers(&mut self, names: &Names, known: &mut Known, building: &mut [Series]) {
        let mut places = HashMap::new();
        let others = names.has_more_consumers.then_some(OTHER);
        for name in names.consumers.iter().map(String::as_str).chain(others) {
            let shards = take(&mut self.consumers, &mut places, name, || {
                known.consumers.remove(name).unwrap_or_else(|| shards(known.workers))
            });
            hand_out(building, &shards, |series| &mut series.consumers);
        }
    }

    fn adopt_limits(&mut self, names: &Names, known: &mut Known, building: &mut [Series]) {
        let mut places = HashMap::new();
        for name in &names.limits {
            let shards = take(&mut self.limits, &mut places, name, || {
                known.limits.remove(name).unwrap_or_else(|| shards(known.workers))
            });
            hand_out(building, &shards, |series| &mut series.limits);
        }
    }

    fn adopt_upstreams(&mut self, names: &Names, known: &mut Known, building: &mut [Series]) {
        let mut endpoints_left = names.series_max;
        for upstream in &names.upstreams {
            let name = &upstream.name;
            let own = known.upstreams.remove(name).unwrap_or_else(|| shards(known.workers));
            for (series, shard) in building.iter_mut().zip(&own) {
                let endpoints = Vec::with_capacity(upstream.endpoints.len());
                series.upstreams.push(UpstreamSeries { upstream: shard.clone(), endpoints });
            }
            let (mut endpoints, mut places) = (Vec::new(), HashMap::new());
            for endpoint in &upstream.endpoints {
                let endpoint = if endpoints_left > 0 { endpoint.as_str() } else { OTHER };
                endpoints_left = endpoints_left.saturating_sub(1);
                let shards = take(&mut endpoints, &mut places, endpoint, || {
                    let key = (name.clone(), endpoint.to_owned());
                    known.endpoints.remove(&key).unwrap_or_else(|| shards(known.workers))
                });
                hand_out(building, &shards, |series| {
                    &mut series.upstreams.last_mut().expect("pushed above").endpoints
                });
            }
            self.upstreams.push((name.clone(), own, endpoints));
        }
    }

    /// A figure of the workers, summed.
    pub fn sum(&self, figure: impl Fn(&WorkerShard) -> u64) -> u64 {
        self.workers.iter().map(|shard| figure(shard)).sum()
    }
}

/// A figure of one thing's shards, summed.
pub fn sum<T>(shards: &Shards<T>, figure: impl Fn(&T) -> u64) -> u64 {
    shards.iter().map(|shard| figure(shard)).sum()
}

/// Durations of one thing's shards, summed.
pub fn summed<T>(shards: &Shards<T>, durations: impl Fn(&T) -> &super::cell::Durations) -> Summed {
    let mut sum = Summed::default();
    shards.iter().for_each(|shard| durations(shard).add_to(&mut sum));
    sum
}

/// What the configuration before had.
struct Known {
    workers: usize,
    listeners: HashMap<String, Shards<ListenerShard>>,
    routes: HashMap<String, Shards<RouteShard>>,
    consumers: HashMap<String, Shards<ConsumerShard>>,
    upstreams: HashMap<String, Shards<UpstreamShard>>,
    limits: HashMap<String, Shards<LimitShard>>,
    endpoints: HashMap<(String, String), Shards<EndpointShard>>,
}

fn shards<T: Default>(workers: usize) -> Shards<T> {
    (0..workers).map(|_| Arc::default()).collect()
}

/// The shards called `name`, which are made and listed when they are not there yet: things of one
/// name are counted as one.
fn take<T>(
    list: &mut Vec<(String, Shards<T>)>,
    places: &mut HashMap<String, usize>,
    name: &str,
    make: impl FnOnce() -> Shards<T>,
) -> Shards<T> {
    let at = *places.entry(name.to_owned()).or_insert(list.len());
    if at == list.len() {
        list.push((name.to_owned(), make()));
    }
    list[at].1.clone()
}

fn of_all<T>(building: &[Series], part: impl Fn(&Series) -> &Arc<T>) -> Shards<T> {
    building.iter().map(|series| part(series).clone()).collect()
}

fn hand_out<T>(
    building: &mut [Series],
    shards: &Shards<T>,
    part: impl Fn(&mut Series) -> &mut Vec<Arc<T>>,
) {
    for (series, shard) in building.iter_mut().zip(shards) {
        part(series).push(shard.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(routes: &[&str], endpoints: &[&str], series_max: usize) -> Names {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        Names {
            listeners: vec!["l".to_owned()],
            routes: owned(routes),
            upstreams: vec![UpstreamNames { name: "u".to_owned(), endpoints: owned(endpoints) }],
            consumers: owned(&["c", "d"]),
            has_more_consumers: true,
            limits: Vec::new(),
            series_max,
            is_off: false,
        }
    }

    #[test]
    fn consumers_beyond_the_first_share_series() {
        let mut registry = Registry::new(2);
        let first = registry.adopt(&names(&[], &[], 2));
        for consumer in [1, 2, 3, 1000] {
            first[1].consumer(consumer).expect("one").traffic.responses[2].count();
        }
        assert_eq!(first[0].consumer(1).expect("one").traffic.responses[2].get(), 0);
        let second = registry.adopt(&Names {
            consumers: vec!["d".to_owned(), "c".to_owned()],
            ..names(&[], &[], 2)
        });
        let counts =
            [0, 1, 2, 7].map(|c| second[1].consumer(c).expect("one").traffic.responses[2].get());
        assert_eq!(counts, [1, 0, 3, 3]);
        let none = Names { consumers: vec![], has_more_consumers: false, ..names(&[], &[], 2) };
        assert!(registry.adopt(&none)[0].consumer(0).is_none());
    }

    #[test]
    fn shards_are_carried_over_by_name() {
        let mut registry = Registry::new(2);
        let first = registry.adopt(&names(&["a", "b"], &["x", "y"], 100));
        first[1].route(Some(1)).traffic.responses[2].count();
        first[0].route(None).traffic.responses[4].count();
        first[0].endpoint(0, 1).reused.count();
        let second = registry.adopt(&names(&["b", "c"], &["y"], 100));
        assert_eq!(second[1].route(Some(0)).traffic.responses[2].get(), 1);
        assert_eq!(second[0].route(None).traffic.responses[4].get(), 1);
        assert_eq!(second[0].endpoint(0, 0).reused.get(), 1);
        assert_eq!(second[1].endpoint(0, 0).reused.get(), 0, "each worker has its own");
        assert!(Arc::ptr_eq(&first[0].worker, &second[0].worker));
        let routes: Vec<_> = registry.routes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(routes, ["", "b", "c"]);
        assert_eq!(sum(&registry.routes[1].1, |shard| shard.traffic.responses[2].get()), 1);
    }

    #[test]
    fn what_is_beyond_the_maximum_shares_series() {
        let mut registry = Registry::new(1);
        let series = registry.adopt(&names(&["a", "b", "c", "d"], &["x", "x", "y", "z"], 2));
        assert!(Arc::ptr_eq(&series[0].routes[2], &series[0].routes[3]));
        assert!(!Arc::ptr_eq(&series[0].routes[1], &series[0].routes[2]));
        let routes: Vec<_> = registry.routes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(routes, ["", "a", "b", OTHER]);
        let endpoints: Vec<_> = registry.upstreams[0].2.iter().map(|(name, _)| &**name).collect();
        assert_eq!(endpoints, ["x", OTHER]);
        assert_eq!(series[0].upstreams[0].endpoints.len(), 4);
    }
}
