//! scratch
use std::sync::Arc;
use std::time::Instant;
use tillstream_kafka::*;
use tillstream_log::broker::*;
use tillstream_log::*;
use tillstream_schemas::Topic;
#[allow(clippy::all)]
#[tokio::main]
async fn main() {
    let b = std::env::var("TILLSTREAM_BROKERS").unwrap();
    let s = KafkaSettings::new(b, "latency");
    KafkaAdmin::new(&s).unwrap().create_topics(&TopicsSpec::new(4, 1)).await.unwrap();
    let t = Instant::now();
    let broker = KafkaBroker::new(s, Arc::default()).unwrap();
    let at = TopicPartition::new(Topic::OrderChangelog, 0);
    broker.bounds(at).await.unwrap();
    println!("first bounds {:?}", t.elapsed());
    for _ in 0..3 { let t = Instant::now(); broker.bounds(at).await.unwrap(); println!("bounds {:?}", t.elapsed()); }
    for i in 0..3 {
        let t = Instant::now();
        let p = broker.producer(&format!("latency.{i}")).unwrap();
        p.init().await.unwrap();
        println!("producer+init {:?}", t.elapsed());
        let t = Instant::now();
        let p2 = broker.producer(&format!("latency.{i}")).unwrap();
        p2.init().await.unwrap();
        println!("init again (fence) {:?}", t.elapsed());
        let t = Instant::now();
        p2.begin().await.unwrap();
        p2.produce(vec![ProduceRecord{to: at, key: "a".into(), value: Some("v".into()), headers: Headers::new()}]).await.unwrap();
        p2.drain().await.unwrap();
        println!("  first drain {:?}", t.elapsed());
        p2.commit().await.unwrap();
        println!("  first commit {:?}", t.elapsed());
        drop(p);
    }
    for _ in 0..4 {
        let t = Instant::now();
        let f = broker.group_offsets("latency.order", &[TopicPartition::new(Topic::OrderCommands, 0)]).await.unwrap();
        println!("group_offsets {:?} {f:?}", t.elapsed());
    }
    for n in 0..4 {
        let (low, end) = broker.bounds(at).await.unwrap();
        let from = if n % 2 == 0 { low } else { end };
        let t = Instant::now();
        let mut r = broker.replay(at, from).unwrap();
        let mut c = 0;
        loop { let s = r.next().await.unwrap(); if s.is_empty() { break } c += s.len(); }
        println!("replay {c} records of {}: {:?}", end - from, t.elapsed());
    }
    let t = Instant::now();
    let m = broker.join("latency.order", Topic::OrderCommands).unwrap();
    loop { if let GroupEvent::Assigned(p) = m.next_event().await { if p.len()==4 {break} } }
    println!("join→assigned {:?}", t.elapsed());
    let t = Instant::now();
    for p in 0..4 { m.fetch_from(p, 0).await.unwrap(); }
    println!("4 fetch_from {:?}", t.elapsed());
    let oc = TopicPartition::new(Topic::OrderCommands, 0);
    let l2 = KafkaLog::open(&broker).await.unwrap();
    for _ in 0..3 {
    l2.append(vec![NewRecord{to: oc, key:"k".into(), value:"v".into(), headers: Headers::new()}]).await.unwrap();
    let e = broker.bounds(oc).await.unwrap().1;
    let t = Instant::now();
    m.fetch_from(0, e-1).await.unwrap(); m.wait_buffered(0, 0).await;
    println!("fetch_from to record {:?}", t.elapsed());
    }
    m.take(0, ReadLimit{records_max:1000, bytes_max:1<<20}).unwrap();
    let fo = l2.follower(&[Topic::OrderCommands]).unwrap();
    let t = Instant::now();
    fo.wait_past(oc, fo.end_offset(oc).unwrap()-1).await.unwrap();
    println!("new follower to record {:?}", t.elapsed());
    let t = Instant::now();
    for _ in 0..100 { m.metadata().unwrap(); }
    println!("metadata each {:?}", t.elapsed()/100);
    let t = Instant::now();
    m.leave().await;
    println!("leave {:?}", t.elapsed());
    let t = Instant::now();
    let log = KafkaLog::open(&broker).await.unwrap();
    println!("log open {:?}", t.elapsed());
    let all = ReadLimit{records_max:1000, bytes_max:1<<20};
    for _ in 0..5 { 
    let at = TopicPartition::new(Topic::Products, 0);
    let p = broker.producer("latency.x").unwrap(); p.init().await.unwrap();
    p.begin().await.unwrap();
    p.produce(vec![ProduceRecord{to: at, key: "a".into(), value: Some("v".into()), headers: Headers::new()}]).await.unwrap();
    p.drain().await.unwrap(); p.commit().await.unwrap();
    let t = Instant::now(); log.refresh(&[at]).await.unwrap(); println!("refresh {:?}", t.elapsed());
    let end = log.end_offset(at).unwrap();
    let t = Instant::now(); let r = log.read_on(at, end-1, all).await.unwrap(); println!("adhoc read_on marker {:?} {:?}", t.elapsed(), (r.0.len(), r.1));
    }
    let at = TopicPartition::new(Topic::Products, 0);
    let f = log.follower(&[Topic::Products]).unwrap();
    let mut pos = f.start_offset(at).unwrap();
    for _ in 0..3 {
    let p = broker.producer("latency.x").unwrap(); p.init().await.unwrap();
    p.begin().await.unwrap();
    p.produce(vec![ProduceRecord{to: at, key: "a".into(), value: Some("v".into()), headers: Headers::new()}]).await.unwrap();
    p.drain().await.unwrap(); p.commit().await.unwrap();
    let t = Instant::now(); f.refresh(&[at]).await.unwrap(); let e1 = t.elapsed();
    let end = f.end_offset(at).unwrap();
    while pos < end { f.wait_past(at, pos).await.unwrap(); pos = f.read_on(at, pos, all).await.unwrap().1; }
    println!("follow to end: refresh {e1:?} all {:?}", t.elapsed());
    let t = Instant::now(); f.refresh(&[at]).await.unwrap(); println!("follow to end at rest {:?}", t.elapsed());
    }
    for _ in 0..5 { let t = Instant::now(); log.append(vec![NewRecord{to: at, key:"k".into(), value:"v".into(), headers: Headers::new()}]).await.unwrap(); println!("append {:?}", t.elapsed()); }
}
