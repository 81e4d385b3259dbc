// What a worker in Node can tell Holdline, and what Holdline tells a worker. No dependencies. In reading order:
// `registration` keeps a worker's place, `resume` reads the headers of an attach, `admin` asks the admin API.
export { register, Registration } from './registration.js';
export { commit, Resume } from './resume.js';
export { Refused } from './admin.js';
