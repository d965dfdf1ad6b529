// Threads that go through one step of a model together, a barrier between its phases.
#pragma once
#include <omp.h>
#include <sched.h>

#include <atomic>
#include <cstdint>

class Team {
    struct Shared {
        std::atomic<int64_t> arrived{0}, round{0}, claimed{0};
    };

public:
    struct Meeting : Shared {};  // what the threads of one team share

    int64_t rank, size;
    Team(Meeting& meeting, int64_t rank, int64_t size) : rank(rank), size(size), shared(meeting) {}

    // Until all are here. They spin: phases are microseconds apart. A thread that lost its processor is waited for idly.
    void wait() {
        if (size == 1) return shared.claimed.store(0, std::memory_order_relaxed);
        const int64_t round = shared.round.load(std::memory_order_acquire);
        if (shared.arrived.fetch_add(1, std::memory_order_acq_rel) == size - 1) {
            shared.arrived.store(0, std::memory_order_relaxed);
            shared.claimed.store(0, std::memory_order_relaxed);
            shared.round.store(round + 1, std::memory_order_release);
            return;
        }
        for (int64_t spins = 0; shared.round.load(std::memory_order_acquire) == round; spins++)
            spins < 20000 ? __builtin_ia32_pause() : static_cast<void>(sched_yield());
    }

    // This thread's part of `count` equal pieces of work, in one stretch
    template <typename Work>
    void share(int64_t count, const Work& work) const {
        for (int64_t i = count * rank / size; i < count * (rank + 1) / size; i++) work(i);
    }

    // Unequal pieces: whoever is free takes the next. Once between two barriers.
    template <typename Work>
    void take(int64_t count, const Work& work) {
        for (int64_t i; (i = shared.claimed.fetch_add(1, std::memory_order_relaxed)) < count;) work(i);
    }

private:
    Shared& shared;
};
