package admission

import "container/heap"

// queue is a heap of items that wait. Every item knows its place, so it can leave from the middle.
type queue[T any] struct {
	all    []T
	before func(a, b T) bool
	place  func(T) *int // where an item keeps its place; -1 while it is not in the queue
}

func (q *queue[T]) push(item T)   { heap.Push((*queueHeap[T])(q), item) }
func (q *queue[T]) remove(item T) { heap.Remove((*queueHeap[T])(q), *q.place(item)) }

// moved puts an item in its right place after its order has changed.
func (q *queue[T]) moved(item T) { heap.Fix((*queueHeap[T])(q), *q.place(item)) }

func (q *queue[T]) len() int { return len(q.all) }

// first returns the item that is first. The queue must not be empty.
func (q *queue[T]) first() T { return q.all[0] }

// queueHeap implements heap.Interface.
type queueHeap[T any] queue[T]

func (h *queueHeap[T]) Len() int           { return len(h.all) }
func (h *queueHeap[T]) Less(i, j int) bool { return h.before(h.all[i], h.all[j]) }
func (h *queueHeap[T]) Swap(i, j int) {
	h.all[i], h.all[j] = h.all[j], h.all[i]
	*h.place(h.all[i]), *h.place(h.all[j]) = i, j
}
func (h *queueHeap[T]) Push(x any) {
	item := x.(T)
	*h.place(item) = len(h.all)
	h.all = append(h.all, item)
}
func (h *queueHeap[T]) Pop() any {
	last := len(h.all) - 1
	item := h.all[last]
	var zero T
	h.all[last] = zero
	h.all = h.all[:last]
	*h.place(item) = -1
	return item
}
