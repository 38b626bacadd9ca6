//! Throwaway.
use std::sync::Arc;
use std::time::{Duration, Instant};
use object_store::ObjectStore;
use reckon_batch::archive::*;
use reckon_data::clock::*;
use reckon_data::columns::EventBuilder;
use reckon_data::event::Event;
use reckon_data::jobs::Follower;
use reckon_data::log::{Log, memory::MemoryLog};
use reckon_data::record::encode_events;
use reckon_data::table::{Table, Tables};
use reckon_tables::*;
fn rng(s:&mut u64)->u64{*s^=*s<<13;*s^=*s>>7;*s^=*s<<17;*s}
fn cpu()->f64{let s=std::fs::read_to_string("/proc/self/stat").unwrap();let v:Vec<&str>=s.split_whitespace().collect();(v[13].parse::<f64>().unwrap()+v[14].parse::<f64>().unwrap())/100.0}
fn rss(k:&str)->u64{let s=std::fs::read_to_string("/proc/self/status").unwrap();s.lines().find(|l|l.starts_with(k)).unwrap().split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()/1024}
#[tokio::main(flavor="multi_thread",worker_threads=2)]
async fn main(){
 let records:usize=std::env::args().nth(1).map_or(1200,|x|x.parse().unwrap());
 let full=std::env::args().nth(2).is_some();
 let per=2500;let log=MemoryLog::new(4,&RandomNames);let mut s=88172645463325252u64;
 let mut bytes=0;
 for r in 0..records{
  let mut b=EventBuilder::default();
  for i in 0..per{
   let id=format!("{:016x}{:016x}",rng(&mut s),rng(&mut s));
   let x=(rng(&mut s)>>11) as f64/((1u64<<53) as f64);let ent=format!("video-{}",(1e6f64.powf(x)) as u64);
   let u=format!("user-{}",rng(&mut s)%3_000_000);let ip=format!("{}.{}.{}.{}",rng(&mut s)%223,rng(&mut s)%256,rng(&mut s)%256,rng(&mut s)%256);
   let v=rng(&mut s)%5==0;
   let e=Event{event_id:&id,event_type:["view","view","like"][(rng(&mut s)%3) as usize],entity_id:&ent,event_time:1_790_000_000_000_000+(r*per+i) as i64*3+(rng(&mut s)%2_000_000) as i64,user_id:Some(&u),ip:full.then_some(&ip),country:Some(["US","DE","FR","IN"][(rng(&mut s)%4) as usize]),value:v.then_some(1_500_000),properties:None};
   b.push(&e,e.key().hash());
  }
  let rec=encode_events(&b.finish().unwrap(),0,1_790_000_000_000_000).unwrap();bytes+=rec.len();
  log.append((r%4) as u32,vec![rec]).await.unwrap();
 }
 let n=(records*per) as f64;println!("{} events, {:.1} B/event in the log, rss {} MB",n,bytes as f64/n,rss("VmRSS"));
 let dir=tempfile::tempdir().unwrap();
 let store:Arc<dyn ObjectStore>=Arc::new(SyncedLocal::open(dir.path()).unwrap());
 let clock:Arc<dyn Clock>=Arc::new(SystemClock);
 let tables:Arc<dyn Tables>=Arc::new(MemoryTables::new(clock.clone()));
 let base=rss("VmRSS");
 let (c,t)=(cpu(),Instant::now());
 let mut settings=reckon_data::config::Archive::default();settings.commit_every=Duration::from_secs(20);
 let a=Archiver::start(ArchiverParts{log:Arc::new(log.clone()),tables:tables.clone(),store,clock,names:Arc::new(RandomNames),settings}).await.unwrap();
 let mut ends=vec![];for p in 0..4{ends.push(log.extent(p).await.unwrap().end);}
 a.reach(&ends).await.unwrap();
 let (cpu,wall)=(cpu()-c,t.elapsed().as_secs_f64());
 let st=a.stats();
 println!("cpu {:.3} us/event, wall {:.3} us/event, {:.1} B/event, peak rss over base {} MB",cpu*1e6/n,wall*1e6/n,st.bytes as f64/n,rss("VmHWM")-base);
 println!("{st:?}");
 println!("files {}",tables.snapshot(Table::Events).await.unwrap().files.len());
}
