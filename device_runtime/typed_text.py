"""What `keyfed bench device` types: messages of our own, the same on every board and for every bundle.

Everyday words mostly, as in chat, some rare ones of several pieces, some punctuation and emoji.
"""

MESSAGES = (
    "hey are you coming tonight ?",
    "yeah i'll be there around eight",
    "ok cool can you bring some snacks and maybe a bottle of lemonade",
    "i don't think so , my sister took the car to the airport",
    "lol that's fine we can order something instead",
    "did you see what happened at the game yesterday ?",
    "no i fell asleep on the sofa , tell me everything !",
    "they were losing by twelve points and then the goalkeeper scored in the last minute",
    "that's crazy , i can't believe i missed it 😂",
    "are you still at work ?",
    "just leaving now , the traffic near the roundabout is terrible",
    "do you want me to pick anything up from the supermarket",
    "maybe milk and some wholegrain bread if they have any",
    "i have a dentist appointment on thursday so i'll be late for the rehearsal",
    "good luck , i hope it doesn't hurt",
    "thanks ❤ i really appreciate it",
    "what time does the train get in ?",
    "it should arrive at half past six but it's usually delayed",
    "happy birthday ! hope you have an amazing day",
    "we should go hiking next weekend if the weather is nice",
    "sounds great , let me check with my roommates first",
    "my phone is almost dead , i'll text you when i get home",
    "have you finished the chemistry assignment yet",
    "nope i'm procrastinating as usual , it's due on monday isn't it",
    "i was thinking about the photographs you showed me , they're gorgeous",
    "sorry i just saw this , i was in the shower",
    "no worries , let's talk tomorrow",
    "the neighbours are renovating again and the drilling is unbearable",
    "omg same here , i've been wearing headphones all afternoon",
    "love you , goodnight",
)
