/** A conversation's branches. */

import type { Message } from './types';

export interface Tree {
  byId: Map<string, Message>;
  children: Map<string | null, Message[]>;
}

export function treeOf(messages: readonly Message[]): Tree {
  const byId = new Map<string, Message>();
  const children = new Map<string | null, Message[]>();
  for (const message of messages) {
    byId.set(message.id, message);
    const beside = children.get(message.parent);
    if (beside) beside.push(message);
    else children.set(message.parent, [message]);
  }
  return { byId, children };
}

/** The messages from the first one to `leaf`. */
export function branch(tree: Tree, leaf: string | null): Message[] {
  const path: Message[] = [];
  for (let one = leaf === null ? undefined : tree.byId.get(leaf); one; one = parentOf(tree, one)) path.push(one);
  return path.reverse();
}

export function siblings(tree: Tree, message: Message): Message[] {
  return tree.children.get(message.parent) ?? [message];
}

/** Where a branch that goes through `message` ends, its latest turns first. */
export function leafBelow(tree: Tree, message: Message): string {
  let one = message;
  for (let below = tree.children.get(one.id); below?.length; below = tree.children.get(one.id)) one = below.at(-1)!;
  return one.id;
}

/** Answers to the same message that are compared, side by side; only `message` itself where it is compared with none. */
export function pairOf(tree: Tree, message: Message): Message[] {
  if (!message.pair) return [message];
  return siblings(tree, message).filter((one) => one.pair === message.pair);
}

function parentOf(tree: Tree, message: Message): Message | undefined {
  return message.parent === null ? undefined : tree.byId.get(message.parent);
}
