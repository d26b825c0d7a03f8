//! Pools of huge pages (`mm/hugetlb.c`).

use super::{Done, Kernel, number};

impl Kernel {
    /// `nr_hugepages`: the pool grows as far as there is room, and shrinks by what is free; what is in use
    /// beyond the new size is surplus.
    pub(super) fn set_hugepages(&self, dir: &str, text: &str) -> Done {
        let wanted = number(text)?;
        let count = |file: &str| -> u64 {
            let text = self.get(&format!("{dir}/{file}"));
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let (all, free, surplus) = (
            count("nr_hugepages"),
            count("free_hugepages"),
            count("surplus_hugepages"),
        );
        let persistent = all - surplus;
        let room = self.get("/.standin/memory/room");
        let room: u64 = room.map_or(u64::MAX, |text| text.parse().unwrap());
        let used = all - free;
        if wanted > persistent {
            // Surplus pages become persistent first.
            let more = wanted - persistent;
            let adopted = more.min(surplus);
            let made = (more - adopted).min(room.saturating_sub(all));
            self.put(&format!("{dir}/surplus_hugepages"), surplus - adopted);
            self.put(&format!("{dir}/nr_hugepages"), all + made);
            self.put(&format!("{dir}/free_hugepages"), free + made);
        } else {
            let left = wanted.max(used);
            self.put(&format!("{dir}/nr_hugepages"), left);
            self.put(&format!("{dir}/free_hugepages"), left - used);
            self.put(&format!("{dir}/surplus_hugepages"), left - wanted);
        }
        Ok(())
    }
}
