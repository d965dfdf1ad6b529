// Threads that go through one step of a model together, a barrier between its phases.
#pragma once
#include <omp.h>
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <vector>

class Team {
public:
    // What the threads of one team share
    class Meeting {
        friend Team;
        struct alignas(64) Counter {
            std::atomic<int64_t> count{0};
        };
        Counter arrived, round;
        std::vector<Counter> claimed;  // of each thread's stretch

    public:
        void expect(int64_t size) { claimed = std::vector<Counter>(size); }
    };

    int64_t rank, size;
    Team(Meeting& meeting, int64_t rank, int64_t size) : rank(rank), size(size), shared(meeting) {}

    // Until all are here. They spin: phases are microseconds apart. A thread that lost its processor is waited for idly.
    void wait() {
        const int64_t round = shared.round.count.load(std::memory_order_acquire);
        if (shared.arrived.count.fetch_add(1, std::memory_order_acq_rel) == size - 1) {
            shared.arrived.count.store(0, std::memory_order_relaxed);
            for (auto& claimed : shared.claimed) claimed.count.store(0, std::memory_order_relaxed);
            shared.round.count.store(round + 1, std::memory_order_release);
            return;
        }
        for (int64_t spins = 0; shared.round.count.load(std::memory_order_acquire) == round; spins++)
            spins < 20000 ? __builtin_ia32_pause() : static_cast<void>(sched_yield());
    }

    // This thread's part of `count` equal pieces of work, in one stretch
    template <typename Work>
    void share(int64_t count, const Work& work) const {
        for (int64_t i = count * rank / size; i < count * (rank + 1) / size; i++) work(i);
    }

    // Pieces that take longer here than there: each thread goes through its own stretch, and who is through helps others
    // with theirs. Once between two barriers.
    template <typename Work>
    void take(int64_t count, const Work& work) {
        for (int64_t n = 0; n < size; n++) {
            const int64_t owner = (rank + n) % size, first = count * owner / size, end = count * (owner + 1) / size;
            std::atomic<int64_t>& claimed = shared.claimed[owner].count;
            for (int64_t i; (i = first + claimed.fetch_add(1, std::memory_order_relaxed)) < end;) work(i);
        }
    }

private:
    Meeting& shared;
};
