-------------------------------- MODULE Ledger --------------------------------
(* The ledger's protocol: workers that die, sleep and contend read a shard that is split and merged again, while every
   batch may be put several times. Checked by tests/integration/test_model.py with TLC, together with two ways to get it wrong.

   A batch stands for its events. A worker's `seen` is the interval set in its memory, `out` what it will name in its next
   commit. Claim and Commit are the two conditional writes of headwater/ledger.py. A worker that sleeps takes no step for a
   while; one that is dead takes none any more, or begins anew with a Claim, which forgets what it had in memory. *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS Batches, Copies, Workers, Claims, Bug

Shards == {"parent", "left", "right", "merged"}
Parents(s) == CASE s = "parent" -> {} [] s \in {"left", "right"} -> {"parent"} [] s = "merged" -> {"left", "right"}

VARIABLES
    made,    \* the shards that there are
    open,    \* those that take records
    log,     \* per shard the batches in it, in order
    puts,    \* how often each batch was put
    ledger,  \* per shard its item; epoch 0: there is none
    lake,    \* how often a commit has named each batch
    worker   \* what each worker has in memory
vars == <<made, open, log, puts, ledger, lake, worker>>

Idle == [shard |-> "none", epoch |-> 0, base |-> 0, pos |-> 0, seen |-> {}, out |-> {}]

Init ==
    /\ made = {"parent"} /\ open = {"parent"}
    /\ log = [s \in Shards |-> <<>>]
    /\ puts = [b \in Batches |-> 0]
    /\ ledger = [s \in Shards |-> [epoch |-> 0, pos |-> 0, seen |-> {}, closed |-> FALSE]]
    /\ lake = [b \in Batches |-> 0]
    /\ worker = [w \in Workers |-> Idle]

(* A sealed batch keeps its hash key: odd ones go left, even ones right. *)
Place(b) == CHOOSE s \in open : s \in {"parent", "merged"} \/ (s = "left") = (b % 2 = 1)

Put(b) ==
    /\ puts[b] < Copies
    /\ puts' = [puts EXCEPT ![b] = @ + 1]
    /\ log' = [log EXCEPT ![Place(b)] = Append(@, b)]
    /\ UNCHANGED <<made, open, ledger, lake, worker>>

Reshard ==
    /\ \/ open = {"parent"} /\ open' = {"left", "right"}
       \/ open = {"left", "right"} /\ open' = {"merged"}
    /\ made' = made \cup open'
    /\ UNCHANGED <<log, puts, ledger, lake, worker>>

Claim(w, s) ==
    LET item == ledger[s]
        handed == IF Bug = "nothing handed over" THEN {} ELSE UNION {ledger[p].seen : p \in Parents(s)}
        seen == IF item.epoch = 0 THEN handed ELSE item.seen
    IN  /\ s \in made /\ ~item.closed /\ item.epoch < Claims
        /\ \A p \in Parents(s) : ledger[p].closed
        /\ ledger' = [ledger EXCEPT ![s] = [item EXCEPT !.epoch = @ + 1, !.seen = seen]]
        /\ worker' = [worker EXCEPT ![w] = [shard |-> s, epoch |-> item.epoch + 1, base |-> item.pos,
                                            pos |-> item.pos, seen |-> seen, out |-> {}]]
        /\ UNCHANGED <<made, open, log, puts, lake>>

Read(w) ==
    LET me == worker[w]
    IN  /\ me.shard # "none" /\ me.pos < Len(log[me.shard])
        /\ LET b == log[me.shard][me.pos + 1]
           IN  worker' = [worker EXCEPT ![w] = [me EXCEPT !.pos = @ + 1, !.seen = @ \cup {b},
                                                          !.out = IF b \in me.seen THEN @ ELSE @ \cup {b}]]
        /\ UNCHANGED <<made, open, log, puts, ledger, lake>>

(* One conditional write; who has lost the race is fenced and drops what it has. *)
Commit(w, closing) ==
    LET me == worker[w]
        item == ledger[me.shard]
        held == Bug = "no fence" \/ (item.epoch = me.epoch /\ item.pos = me.base)
    IN  /\ me.shard # "none"
        /\ IF closing THEN me.shard \notin open /\ me.pos = Len(log[me.shard]) ELSE me.pos > me.base
        /\ IF held
           THEN /\ ledger' = [ledger EXCEPT ![me.shard] = [item EXCEPT !.pos = me.pos, !.seen = me.seen,
                                                                       !.closed = closing]]
                /\ lake' = [b \in Batches |-> IF b \in me.out THEN lake[b] + 1 ELSE lake[b]]
                /\ worker' = [worker EXCEPT ![w] = IF closing THEN Idle ELSE [me EXCEPT !.base = me.pos, !.out = {}]]
           ELSE /\ worker' = [worker EXCEPT ![w] = Idle]
                /\ UNCHANGED <<ledger, lake>>
        /\ UNCHANGED <<made, open, log, puts>>

Next ==
    \/ Reshard
    \/ \E b \in Batches : Put(b)
    \/ \E w \in Workers : Read(w) \/ Commit(w, TRUE) \/ Commit(w, FALSE) \/ \E s \in Shards : Claim(w, s)

Spec == Init /\ [][Next]_vars
Alike == Permutations(Workers)

(* What is committed of a shard is in the lake once: what was read, and what its parents had. *)
Once == \A b \in Batches : lake[b] <= 1
NothingSkipped ==
    \A s \in Shards : \A at \in 1..ledger[s].pos : lake[log[s][at]] >= 1
SeenIsInTheLake == \A s \in Shards : \A b \in ledger[s].seen : lake[b] = 1
===============================================================================
