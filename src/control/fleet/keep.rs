//! Keeps the connection to one server, and carries orders to it and answers back.
//!
//! **Bounds**: one batch of at most [`BATCH_MAX`] orders is on its way at a time; meanwhile others
//! gather in the link's queue. An answer has its time, after which the connection is given up with
//! all that was on it: tokens that the server took for it are lost to their keys.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use redis::{RedisResult, Value};
use tokio::time::{sleep, timeout};

use super::{
    bucket,
    connect::{Connection, connect, ping, words},
};
use crate::{
    config::snapshot::{FleetOrder, Redis},
    policy::limit::fleet::Order,
    worker::{home, home::Homes, rate_limits},
};

/// Orders in one batch, at most.
const BATCH_MAX: usize = 512;
/// Without orders, the server is asked for a sign of life.
const IDLE: Duration = Duration::from_secs(1);

/// Runs until it is dropped.
pub async fn keep(own: Rc<RefCell<Arc<Redis>>>, homes: Homes) {
    let mut wait_ms = 0;
    loop {
        let redis = own.borrow().clone();
        let within = Duration::from_millis(redis.connect_timeout_ms);
        let why = match timeout(within, connect(&redis)).await {
            Ok(Ok(connection)) => {
                redis.link.reached();
                tracing::info!(redis = redis.name, "connected: limits are shared");
                let begun = Instant::now();
                let why = Carrier { redis: redis.clone(), homes: &homes, connection }.carry().await;
                if begun.elapsed() > Duration::from_millis(redis.retry_ms) {
                    wait_ms = 0;
                }
                why
            }
            Ok(Err(why)) => why,
            Err(_) => format!("no connection within {} ms", redis.connect_timeout_ms),
        };
        redis.link.figures.failures.fetch_add(1, Ordering::Relaxed);
        if redis.link.lost(&why) {
            tracing::warn!(
                redis = redis.name,
                why,
                "not reached: each process decides about shared limits by their fallback"
            );
        }
        wait_ms = (2 * wait_ms).clamp((redis.retry_ms / 20).max(1), redis.retry_ms);
        sleep(spread(wait_ms)).await;
    }
}

/// Between half of it and all, so that gateways that lost a server together do not come back
/// together.
fn spread(wait_ms: u64) -> Duration {
    let half_us = wait_ms * 500;
    let mut bytes = [0; 8];
    // Without random bytes there is no jitter, and no harm.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    Duration::from_micros(half_us + u64::from_ne_bytes(bytes) % (half_us + 1))
}

/// One connection at work.
struct Carrier<'h> {
    redis: Arc<Redis>,
    homes: &'h Homes,
    connection: Connection,
}

impl Carrier<'_> {
    /// Until the connection ends, or an answer does not come; answers why.
    async fn carry(mut self) -> String {
        let digest = bucket::name();
        let within = Duration::from_millis(self.redis.timeout_ms);
        let link = self.redis.link.clone();
        loop {
            tokio::select! {
                () = link.asked() => {}
                () = sleep(IDLE) => {
                    match timeout(within, ping(&mut self.connection)).await {
                        Ok(Ok(())) => continue,
                        Ok(Err(why)) => return why,
                        Err(_) => return self.late(),
                    }
                }
                _ = &mut self.connection.driver => return "the server closed the connection".into(),
            }
            loop {
                let orders: Vec<_> = std::iter::from_fn(|| link.next()).take(BATCH_MAX).collect();
                if orders.is_empty() {
                    break;
                }
                match timeout(within, self.batch(&orders, &digest)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => return why,
                    Err(_) => return self.late(),
                }
            }
        }
    }

    fn late(&self) -> String {
        format!("no answer within {} ms", self.redis.timeout_ms)
    }

    /// Sends orders and hands out the answers. Fails when none of them was answered well.
    async fn batch(&mut self, orders: &[FleetOrder], digest: &str) -> Result<(), String> {
        let begun = Instant::now();
        let mut answers = self.send(orders.iter(), ("EVALSHA", digest)).await?;
        let unknown: Vec<usize> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| matches!(answer, Err(e) if e.code() == Some("NOSCRIPT")))
            .map(|(at, _)| at)
            .collect();
        if !unknown.is_empty() {
            let again = unknown.iter().map(|at| &orders[*at]);
            let texts = self.send(again, ("EVAL", bucket::SCRIPT)).await?;
            unknown.into_iter().zip(texts).for_each(|(at, answer)| answers[at] = answer);
        }
        let figures = &self.redis.link.figures;
        figures.batches.fetch_add(1, Ordering::Relaxed);
        figures.micros.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        let (mut answered, mut why) = (0, None);
        for (order, answer) in orders.iter().zip(&answers) {
            match answer {
                Ok(value) => match bucket::lease(order, value) {
                    Some(lease) => {
                        answered += 1;
                        self.hand_out(order, lease);
                    }
                    None => why = Some("an answer that the script does not give".to_owned()),
                },
                Err(e) => why = Some(words(e)),
            }
        }
        figures.orders.fetch_add(answered, Ordering::Relaxed);
        figures.refused.fetch_add(orders.len() as u64 - answered, Ordering::Relaxed);
        match why {
            Some(why) if answered == 0 => Err(why),
            _ => Ok(()),
        }
    }

    async fn send(
        &mut self,
        orders: impl Iterator<Item = &FleetOrder>,
        run: (&str, &str),
    ) -> Result<Vec<RedisResult<Value>>, String> {
        let mut pipeline = redis::pipe();
        for order in orders {
            pipeline.add_command(bucket::command(run, order));
        }
        pipeline.ignore_errors();
        pipeline.query_async(&mut self.connection.inner).await.map_err(|e| words(&e))
    }

    /// Leaves an answer for the worker that asked. Orders that only gave or charged want none.
    fn hand_out(&self, order: &FleetOrder, lease: rate_limits::fleet::Lease) {
        if order.order.ask.is_none() {
            return;
        }
        let tokens = lease.tokens;
        let letter = home::Letter::Limit(rate_limits::Letter::Lease(lease));
        if self.homes.leave(order.worker as usize, letter).is_err() && tokens > 0 {
            let given = Order { key: order.order.key, given: tokens, ..Order::default() };
            let back = FleetOrder { shared: order.shared.clone(), order: given, ..*order };
            // What does not get there is lost to the key, and never too much.
            self.redis.link.leave(back);
        }
    }
}
